"""What is known of base images; the table is `images.toml`, with its sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_LIBRARY = re.compile(r"^(?:(?:index\.)?docker\.io/)?(?:library/)?(?P<name>[a-z0-9][a-z0-9._-]*)$")
_RELEASES = ("buster", "bullseye", "bookworm", "trixie", "forky", "sid")
_ANY = 1 << 30
_VERSION = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Image:
    """A base image of Docker's official library. None means unknown.

    `entrypoint`: "" for none, "passes" for a script that ends in `exec "$@"`, "other". `packages` are the Debian packages
    known to be in it, `has_libraries` tells whether the common shared libraries are.
    """

    name: str
    tag: str
    distribution: str
    release: str | None
    workdir: str | None
    entrypoint: str
    programs: frozenset[str]
    has_certificates: bool | None
    packages: frozenset[str]
    has_libraries: bool


@cache
def table() -> dict[str, dict[str, Any]]:
    """The entries of images.toml by image name."""
    import tomllib

    return tomllib.loads(files("optimizer.facts").joinpath("images.toml").read_text("utf-8"))


@cache
def image(reference: str) -> Image | None:
    """The facts about `reference` (`python:3.13-slim`, `docker.io/library/node`), or None for an image of somebody else."""
    name, tag = split(reference)
    match = _LIBRARY.match(name)
    entry = table().get(match["name"]) if match else None
    if match is None or entry is None or match["name"] == "packages":
        return None
    words = frozenset(tag.split("-"))
    distribution = "alpine" if any(word.startswith("alpine") for word in words) else entry["distribution"]
    certificates = entry.get("certificates")
    kind = next((word for word in ("slim", "alpine", "curl", "scm", "jre") if word in words), "full")
    kind = "alpine" if distribution == "alpine" and name != "alpine" else kind
    buildpack = kind if match["name"] == "buildpack-deps" else entry.get("buildpack", "") if kind == "full" else ""
    return Image(
        match["name"],
        tag,
        distribution,
        _release(tag, entry) if distribution == "debian" else None,
        entry.get("workdir"),
        entry.get("entrypoint", ""),
        frozenset(entry.get("programs", ())),
        None if certificates is None else kind in certificates,
        _packages(buildpack),
        buildpack == "full",
    )


def _packages(buildpack: str) -> frozenset[str]:
    """What a variant of buildpack-deps has installed, by the table."""
    variants = table()["packages"]
    names = list(variants)
    if buildpack not in names:
        return frozenset()
    return frozenset(package for name in names[: names.index(buildpack) + 1] for package in variants[name])


def split(reference: str) -> tuple[str, str]:
    """Name and tag of an image reference, without its digest; the tag is "latest" where none is given."""
    name = reference.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "latest"
    return head, tag


def is_windows(reference: str) -> bool:
    """Whether an image is a Windows base, by its well-known names."""
    return re.search(r"windows|nanoserver|servercore", reference, re.IGNORECASE) is not None


def _release(tag: str, entry: dict[str, Any]) -> str | None:
    """The release of the distribution: named in the tag, or that of the version by the table; None for what is older."""
    words = tag.split("-")
    if named := next((word for word in words if word in _RELEASES), None):
        return named
    releases: list[list[str]] = entry.get("releases", [])
    version = _VERSION.match(words[0])
    if version is None:
        return releases[0][1] if releases and words[0] in ("latest", "stable", "slim", "current", "mainline") else None
    return next((release for lowest, release in releases if _number(version[0]) >= tuple(map(int, lowest.split(".")))), None)


def _number(version: str) -> tuple[int, ...]:
    """A version as a tuple; one without a minor number ("3") counts as its newest."""
    parts = tuple(int(part) for part in version.split("."))
    return parts if len(parts) > 1 else (*parts, _ANY)
