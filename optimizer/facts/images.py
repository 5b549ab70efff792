"""What is known of base images; the table is `images.toml`, with its sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from optimizer.facts.distributions import code_names, named, releases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optimizer.facts.distributions import Release

DISTROLESS = "gcr.io/distroless/"
_LIBRARY = re.compile(r"^(?:(?:index\.)?docker\.io/)?(?:library/)?(?P<name>[a-z0-9][a-z0-9._-]*)$")
_DISTROLESS = re.compile(r"^(?P<name>gcr\.io/distroless/[a-z0-9-]+?)(?:-(?P<release>debian\d+))?$")
# Alpine variants of language images came up with this release.
_FIRST_ALPINE_VARIANTS = "3.3"
_ANY = 1 << 30
_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9})*")
_TABLES = ("packages", "distributions")
# Words of tags that name a variant.
_KINDS = ("slim", "alpine", "curl", "scm", "jre", "jdk", "fpm", "apache", "cli", "zts")


@dataclass(frozen=True, slots=True)
class Image:
    """A base image that the table knows. None means unknown.

    `kind` is its variant ("full" for the unsuffixed tag). `entrypoint`: "" for none, "passes" for a script that ends in `exec
    "$@"`, "other"; `start` and `command` are the words of ENTRYPOINT and CMD. `packages` are the Debian packages known to be
    in it, `buildpack` the variant of buildpack-deps that it is built on ("" for none). `user` is the default user ("" for
    root), `users` the unprivileged ones with their ids, `env` the variables that it sets ("" for a value that the table does
    not have), `libc` "glibc", "musl" or "none", `manager` the package manager ("apt", "apk", "" for none). `megabytes` is the
    uncompressed size.
    """

    name: str
    tag: str
    kind: str
    distribution: str
    release: str | None
    workdir: str | None
    entrypoint: str
    start: tuple[str, ...]
    command: tuple[str, ...]
    programs: frozenset[str]
    has_certificates: bool | None
    packages: frozenset[str]
    buildpack: str
    user: str
    users: Mapping[str, int]
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    has_shell: bool
    libc: str
    manager: str
    megabytes: float | None
    date: str

    @property
    def has_libraries(self) -> bool:
        """Whether the common shared libraries of buildpack-deps are in it."""
        return self.buildpack == "full"

    @property
    def version(self) -> str | None:
        """The version that the tag names, or None."""
        match = _VERSION.match(self.tag)
        return match[0] if match else None


@cache
def table() -> dict[str, dict[str, Any]]:
    """The entries of images.toml by image name."""
    import tomllib

    return tomllib.loads(files("optimizer.facts").joinpath("images.toml").read_text("utf-8"))


@cache
def image(reference: str) -> Image | None:
    """The facts about `reference` (`python:3.13-slim`, `docker.io/library/node`), or None for an image that is not known."""
    name, tag = split(reference)
    found = _entry(name)
    if found is None:
        return None
    key, entry = found
    words = tag.split("-")
    is_alpine = any(word.startswith("alpine") for word in words)
    distribution = "alpine" if is_alpine else entry["distribution"]
    kind = "alpine" if is_alpine and key != "alpine" else next((word for word in _KINDS if word in words), "full")
    certificates = entry.get("certificates")
    buildpack = kind if key == "buildpack-deps" else entry.get("buildpack", "") if kind == "full" else ""
    family = table().get("distributions", {}).get(distribution, {})
    return Image(
        key,
        tag,
        kind,
        distribution,
        _release(tag, entry) if distribution in ("debian", "ubuntu") else None,
        entry.get("workdir"),
        entry.get("entrypoint", ""),
        tuple(entry.get("start", ())),
        tuple(entry.get("command", ())),
        frozenset(entry.get("programs", ())),
        None if certificates is None else kind in certificates,
        _packages(buildpack) | frozenset(entry.get("variants", {}).get(kind, {}).get("packages", ())),
        buildpack,
        "65532" if is_distroless(key) and "nonroot" in words else str(entry.get("user", "")),
        entry.get("users", {}),
        entry.get("env", {}),
        tuple(entry.get("volumes", ())),
        entry.get("shell", family.get("shell", True)),
        family.get("libc", "glibc"),
        family.get("packages", ""),
        entry.get("size", {}).get(kind),
        str(entry.get("date", "")),
    )


def _entry(name: str) -> tuple[str, dict[str, Any]] | None:
    """The key of the table that `name` stands for, and its entry."""
    library = _LIBRARY.match(name)
    distroless = _DISTROLESS.match(name)
    key = library["name"] if library else distroless["name"] if distroless else name
    entry = table().get(key)
    return None if entry is None or key in _TABLES else (key, entry)


def variant(reference: str, kind: str) -> tuple[str, str]:
    """The reference of the `kind` variant ("slim", "alpine", "jre") of an image, same version and release, and ""; or "" and
    why there is none that is known."""
    name, tag = split(reference)
    found = _entry(name)
    if found is None:
        return "", f"{name} is not an image of the table"
    pattern = found[1].get("variants", {}).get(kind)
    short = found[0]
    if pattern is None:
        return "", f"there is no {kind} variant of {short}"
    if "@" in reference:
        return "", "a digest pins the image: its variant has another one"
    words = tag.split("-")
    version, rest = words[0], [word for word in words[1:] if word not in ("jdk", "full")]
    release = release_in_words(rest)
    if [word for word in rest if word != release]:
        return "", f"the tag {tag} is one of several kinds, and has no {kind} variant that is known"
    if version in ("latest", "full") or (version in code_names() and short != "debian"):
        tagged = pattern.get("bare") if release is None and version == "latest" and short != "debian" else None
    elif release is not None:
        tagged = (
            pattern["released"].format(version=version, release=release) if release in pattern.get("releases", ()) else None
        )
    else:
        is_old = _VERSION.fullmatch(version) and _number(version) < _parts(pattern.get("lowest", "0"))
        never = is_old or version in pattern.get("missing", ())
        tagged = None if never else pattern["plain"].format(version=version)
    if tagged is None:
        return "", f"there is no {kind} variant of {short}:{tag} that is known"
    return f"{name}:{tagged}", ""


def living(reference: str) -> str | None:
    """The tag nearest to `reference` whose release of the distribution is still served: of the same version where there is one,
    else of the lowest newer version; None where none is known."""
    name, tag = split(reference)
    found, entry = image(reference), _entry(name)
    if found is None or entry is None or found.kind not in ("full", "slim"):
        return None
    suffix = "-slim" if found.kind == "slim" else ""
    if found.name in ("debian", "ubuntu"):
        own = release_of(found)
        newer = reversed(releases(found.distribution)[: releases(found.distribution).index(own)]) if own is not None else ()
        alive = next((release for release in newer if release.gone is None and release.ends is not None), None)
        if alive is None:
            return None
        return f"{name}:{alive.name if tag.split('-')[0] in code_names() else alive.version}{suffix}"
    version = found.version
    if version is None:
        return None
    is_complete = version.count(".") == 2
    if not is_complete and _lives(_release(version, entry[1]) or ""):
        return f"{name}:{version}{suffix}"
    minor = version.rpartition(".")[0] + "."
    above = [low for low in _living_versions(entry[1], "pinned") if low.startswith(minor)] if is_complete else []
    above += _living_versions(entry[1], "releases")
    higher = next((low for low in above if _parts(low) > _parts(version)), None)
    if higher is None or (found.name == "python" and version.startswith("2")):
        return None  # Python 3 is another language
    return f"{name}:{higher if '.' in version else higher.partition('.')[0]}{suffix}"


def _living_versions(entry: dict[str, Any], key: str) -> list[str]:
    """The versions of a table that stand on releases whose packages are served, lowest first."""
    return [str(lowest) for lowest, release in reversed(entry.get(key, [])) if _lives(str(release))]


def _lives(release: str) -> bool:
    """Whether the packages of a release of Debian or Ubuntu are served."""
    found = named("debian", release) or named("ubuntu", release)
    return found is not None and found.gone is None


def names() -> tuple[str, ...]:
    """The images that the table knows."""
    return tuple(name for name in table() if name not in _TABLES)


def source(name: str) -> str:
    """Where the facts about an image come from."""
    return str(table()[name].get("source", ""))


def variants(name: str) -> tuple[str, ...]:
    """The kinds of variants that an image has."""
    return tuple(table()[name].get("variants", ()))


def slim_packages(name: str) -> frozenset[str]:
    """What the slim variant of an image has beside the packages of its slim distribution."""
    return frozenset(table()[name].get("variants", {}).get("slim", {}).get("packages", ()))


def release_in_tag(tag: str) -> str | None:
    """The release of Debian or Ubuntu that the tag of any image names: `11.8-ubuntu22.04`, `1.2-bookworm`; None without one."""
    if (spelt := release_in_words(re.split(r"[-_]", tag.lower()))) is not None:
        return spelt
    match = re.search(r"(debian|ubuntu)-?(\d+(?:\.\d\d)?)(?![\d.])", tag.lower())
    return _release(match[2], table()[match[1]]) if match is not None else None


def release_in_words(words: list[str]) -> str | None:
    """The release among the words of a tag; None without one."""
    return next((word for word in words if word in code_names()), None)


def alpine_at_least(found: Image) -> str | None:
    """The release of Alpine that an image has, or one that it is certainly not older than; None where it has none."""
    if found.distribution != "alpine":
        return None
    if (exact := release_of(found)) is not None:
        return exact.version
    if found.name != "alpine":
        return _FIRST_ALPINE_VARIANTS
    return releases("alpine")[0].version


def release_of(found: Image) -> Release | None:
    """The release of its distribution that an image certainly has; None where that is not known."""
    version = re.match(r"(stream)?\d+(\.\d+)?", found.tag)
    number = version[0] if version is not None else None
    if found.distribution in ("debian", "ubuntu"):
        return named(found.distribution, found.release)
    if found.distribution == "alpine":
        spelt = re.search(r"alpine-?(\d+\.\d+)", found.tag)
        return named("alpine", spelt[1] if spelt is not None else number if found.name == "alpine" else None)
    return named("centos", (number or "").partition(".")[0]) if found.name == "centos" else None


def archived(found: Image) -> str | None:
    """Since when the packages of the image's release are gone from the servers that the image asks, as "YYYY-MM"; None where
    they are there, or that is not known."""
    release = release_of(found)
    return None if release is None else release.gone


def glibc(found: Image) -> str | None:
    """The version of glibc in an image; None for another C library, or where it is not known."""
    versions = table().get("distributions", {}).get(found.distribution, {}).get("glibc", {})
    version = versions.get(found.release) if found.libc == "glibc" else None
    return None if version is None else str(version)


def glibc_at_least(found: Image, other: Image) -> bool | None:
    """Whether the glibc of an image is as new as that of `other`; None where one is not known, or has another library."""
    own, wanted = glibc(found), glibc(other)
    return None if own is None or wanted is None else _parts(own) >= _parts(wanted)


def lifetime(found: Image) -> str | None:
    """When the version of an image reaches its end of life, as "YYYY-MM"; None where that is not announced or not known."""
    version = found.version or found.release
    ends = [[str(v), str(end)] for v, end in table()[found.name].get("lifetime", [])]
    return next((end for v, end in ends if version is not None and (version == v or version.startswith(f"{v}."))), None)


def newest_minor(name: str) -> str | None:
    """The newest minor version of an image at the date of the table: what a tag without one stands for; None if not known."""
    ends = table().get(name, {}).get("lifetime", [])
    return str(ends[0][0]) if ends else None


def architectures(name: str, kind: str) -> tuple[str, ...] | None:
    """What a variant of an image is published for, such as "amd64"; None where that is not known."""
    found = _entry(name)
    known = found[1].get("architectures", {}).get(kind) if found is not None else None
    return None if known is None else tuple(known)


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


def distroless(kind: str) -> str:
    """The distroless image of a kind ("static", "base", "nodejs24") with the release of Debian in its name: the name without
    one moves on to the next release by itself. Another tag than those that move does not exist."""
    name = f"{DISTROLESS}{kind}"
    endings = table().get(name, {}).get("endings", [])
    return f"{name}-{endings[0]}" if endings else name


def is_distroless(reference: str) -> bool:
    """Whether an image is one of the distroless ones: no shell and no package manager."""
    return reference.startswith(DISTROLESS)


def size_change(base: Image, new: Image) -> str:
    """What two bases weigh, for which tag and when that was measured, to stand behind what is replaced; "" where that is not
    known of a tag like this one, or the new one is no smaller."""
    if new.megabytes is None or base.megabytes is None or new.megabytes >= base.megabytes:
        return ""
    of = str(table()[base.name].get("size", {}).get("of", "")) or newest_minor(base.name) or ""
    if base.version is not None and of and base.version.partition(".")[0] != of.partition(".")[0]:
        return ""  # another major version weighs something else
    tag = f"{base.name}:{of}" if of else base.name
    sizes = f"{base.megabytes:.0f} MB -> {new.megabytes:.0f} MB"
    return f": {sizes} before your layers (measured for {tag}, {new.date})"


def is_windows(reference: str) -> bool:
    """Whether an image is a Windows base, by its well-known names."""
    return re.search(r"windows|nanoserver|servercore", reference, re.IGNORECASE) is not None


def _release(tag: str, entry: dict[str, Any]) -> str | None:
    """The release of the distribution: named in the tag, or that of the version by the table; None for what is older."""
    words = tag.split("-")
    if (spelt := release_in_words(words)) is not None:
        return spelt
    version = _VERSION.match(words[0])
    is_complete = version is not None and version[0].count(".") == 2
    releases: list[list[str]] = entry.get("pinned" if is_complete and "pinned" in entry else "releases", [])
    if version is not None and _is_finer(version[0], releases) and not entry.get("codenames"):
        return None  # such a tag stays on the release that it was built on, which this table does not have
    if version is None:
        return releases[0][1] if releases and words[0] in ("latest", "stable", "slim", "current", "mainline") else None
    return next((release for lowest, release in releases if _number(version[0]) >= _parts(lowest)), None)


def _is_finer(version: str, releases: list[list[str]]) -> bool:
    """Whether a version says more than every entry of a table: 16.3, where that has 16 and 15."""
    return bool(releases) and all(version.count(".") > lowest.count(".") for lowest, _ in releases)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _number(version: str) -> tuple[int, ...]:
    """A version as a tuple; one without a minor number ("3") counts as its newest."""
    parts = _parts(version)
    return parts if len(parts) > 1 else (*parts, _ANY)
