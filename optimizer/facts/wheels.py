"""Versions, markers and wheels of Python packages, read by `packaging`: what pip would choose on Linux.

Everything that compares versions, weighs an environment marker or tells whether a wheel fits asks here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet
    from packaging.tags import Tag

_BELOW = 99_999  # a release number that no real one reaches: what stands for "the newest below"
# The C libraries of the images: manylinux_2_5 to that of bookworm, musllinux to that of Alpine 3.x.
_GLIBC, _MUSL = range(5, 37), range(3)
_OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


def version(text: str | None) -> Version | None:
    """A version, or None for what is none."""
    try:
        return Version(text) if text else None
    except ValueError:  # InvalidVersion, or a number with thousands of digits
        return None


def requirement(text: str) -> Requirement | None:
    """A requirement as PEP 508 writes it, or None for what is none."""
    try:
        return Requirement(text)
    except (InvalidRequirement, RecursionError):  # the parser calls itself for each parenthesis of a marker
        return None


def highest(specifiers: SpecifierSet) -> str | None:
    """The highest version that `specifiers` allow, all of them together; None without a limit. What stands just below a bound
    is written with a number that no release reaches."""
    found = [(bound, text) for one in specifiers if (text := _bound(one.operator, one.version)) and (bound := version(text))]
    return min(found)[1] if found else None


def _bound(operator: str, text: str) -> str | None:
    """The highest version that one specifier allows; None for one that sets no limit above."""
    bare = version(text.removesuffix(".*"))
    if bare is None:
        return None
    numbers = list(bare.release)
    if operator in ("==", "===", "<=") and not text.endswith(".*"):
        return text
    if operator == "==":
        return ".".join(map(str, (*numbers, _BELOW)))
    if operator == "~=":
        return ".".join(map(str, (*numbers[:-1], _BELOW)))
    if operator != "<":
        return None
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return ".".join(map(str, (*numbers[:-1], numbers[-1] - 1, _BELOW)))


def applies(marker: Marker | str | None, python: str | None) -> bool:
    """Whether an environment marker holds on Linux, on one of the usual machines, with that minor version of Python; what
    cannot be told counts as holding."""
    if marker is None or marker == "":
        return True
    try:
        found = Marker(marker) if isinstance(marker, str) else marker
        return any(found.evaluate(_environment(python, machine)) for machine in ("x86_64", "aarch64"))
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
        return True


def _environment(python: str | None, machine: str) -> dict[str, str]:
    known = {"python_version": python, "python_full_version": f"{python}.0"} if python is not None else {}
    return {
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "extra": "",
        **known,
    }


def fits(wheel: str, python: str, *, musl: bool) -> bool:
    """Whether pip installs a wheel of that file name on Linux for x86-64 with that minor version of Python."""
    try:
        tags = parse_wheel_filename(wheel)[3]
    except (InvalidWheelFilename, InvalidVersion):
        return False
    return not tags.isdisjoint(_supported(python, musl=musl))


@cache
def _supported(python: str, *, musl: bool) -> frozenset[Tag]:
    """The tags that pip accepts there, as `packaging` lists them."""
    parts = Version(python).release[:2]
    names = [f"musllinux_1_{minor}_x86_64" for minor in _MUSL] if musl else [f"manylinux_2_{n}_x86_64" for n in _GLIBC]
    names += [] if musl else [f"{old}_x86_64" for old in _OLD_NAMES.values()]
    interpreter = f"cp{''.join(map(str, parts))}"
    return frozenset((*cpython_tags(parts, platforms=names), *compatible_tags(parts, interpreter, platforms=names)))
