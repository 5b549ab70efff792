"""Releases of distributions: until when they live, and whether their packages are still served; see `distributions.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a distribution: `ends` and `gone` are months ("YYYY-MM"), the end of its support for everybody, and since
    when its packages are gone from the servers that its images ask. None: not announced, still served, or not known."""

    distribution: str
    name: str
    version: str
    ends: str | None
    gone: str | None


@cache
def releases(distribution: str) -> tuple[Release, ...]:
    """The releases of a distribution, newest first; none of one that the table does not have."""
    import tomllib

    table = tomllib.loads(files("optimizer.facts").joinpath("distributions.toml").read_text("utf-8"))
    rows = table.get(distribution, {}).get("releases", ())
    return tuple(Release(distribution, name, version, ends or None, gone or None) for name, version, ends, gone in rows)


@cache
def code_names() -> frozenset[str]:
    """The code names by which tags name a release of Debian or Ubuntu."""
    return frozenset({"sid", *(release.name for release in (*releases("debian"), *releases("ubuntu")))})


def named(distribution: str, release: str | None) -> Release | None:
    """The release of that name or number; None for one that the table does not have."""
    return next((r for r in releases(distribution) if release in (r.name, r.version)), None)
