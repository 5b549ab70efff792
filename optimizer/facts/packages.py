"""What is known of packages by name: Debian's programs and libraries, Python's wheels, npm's addons, Go's modules.

The tables are `debian.json`, `pypi.json`, `npm.toml`, `gomodules.toml` and `alpine.toml`; each says at its top how it was made.
The large ones are JSON, which is read twenty times as fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from optimizer.facts.wheels import version as version_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LOADED_BY_SONAME = re.compile(r"\.so(\.\d+)*$")


@cache
def table(name: str) -> dict[str, Any]:
    """The table `name`, of whichever format."""
    folder = files("optimizer.facts")
    path = folder.joinpath(f"{name}.json")
    if path.is_file():
        import json

        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found, dict)
        return found
    import tomllib

    return tomllib.loads(folder.joinpath(f"{name}.toml").read_text("utf-8"))


# -------------------------------------------------------------------- Debian


@cache
def base_programs() -> frozenset[str]:
    """The programs of every Debian image, the slim ones too, and the builtins of its shells."""
    debian = table("debian")
    builtin = debian["programs"].get("builtin", {})
    return frozenset((*debian["base"], *builtin.get("list", ()), *builtin.get("bash", ())))


def is_base_program(program: str) -> bool:
    """Whether a word is a program, not a builtin alone, of every Debian image."""
    return program in table("debian")["base"]


@cache
def _builtins() -> frozenset[str]:
    found = table("debian")["programs"].get("builtin", {})
    return frozenset((*found.get("list", ()), *found.get("bash", ())))


def is_builtin(program: str) -> bool:
    """Whether a word is a builtin of the shells."""
    return program in _builtins()


@cache
def _with_programs() -> frozenset[str]:
    return frozenset(p for p in table("debian")["programs"].values() if isinstance(p, str))


def has_program(package: str) -> bool:
    """Whether a Debian package is known for a program that it holds, or only says where others are."""
    return package in _with_programs() or package in ("ca-certificates", "tzdata", "apt-transport-https", "lsb-release")


def package_of(program: str, release: str | None) -> str | None:
    """The Debian package that has `program`, or None."""
    programs = table("debian")["programs"]
    found = programs.get(f"{program}@{release}", programs.get(program))
    return found if isinstance(found, str) else None


@cache
def lost_in_slim(release: str | None) -> frozenset[str]:
    """The packages that the full images built on buildpack-deps have and their slim variants lack."""
    full = table("debian")["full"]
    return frozenset(full[release] if release in full else (package for packages in full.values() for package in packages))


@cache
def with_recommendations() -> dict[str, dict[str, list[str]]]:
    """What packages recommend, by the releases for which that is known."""
    return {release: packages for release, packages in table("apt_recommends").items() if isinstance(packages, dict)}


def recommended(name: str, release: str | None) -> frozenset[str] | None:
    """What `name` recommends in a release, directly or not; None for a package that the table does not have there. In a release
    that the table does not have, what it recommends in any other stands in for that: a check has to say so."""
    known = with_recommendations()
    tables = [known[release]] if release in known else list(known.values())
    found = [packages[name] for packages in tables if name in packages]
    return frozenset(package for packages in found for package in packages) if found else None


# Libraries that every Debian image has.
ALWAYS = frozenset({"libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libcrypt1"})


def in_release(package: str, release: str | None) -> str | None:
    """What a library package of bookworm is called in another release; None where that is not known."""
    debian = table("debian")
    if release in (None, "bookworm"):
        return package
    names = [soname for soname, holder in debian["library-files"].items() if holder == package and "@" not in soname]
    for soname in names:
        if f"{soname}@{release}" in debian["library-files"]:
            return str(debian["library-files"][f"{soname}@{release}"]) or None
    full = debian["full"]
    is_gone = package in full["bookworm"] and package not in full.get(str(release), ())
    return None if is_gone else package


def library_package(name: str, release: str | None) -> str | None:
    """The Debian package of a shared library that is loaded as `libmagic.so.1` or, in short, as `magic`; None if not known."""
    known = table("debian")["library-files"]
    stem = name.rpartition("/")[2]
    if not _LOADED_BY_SONAME.search(stem):
        stem = next((k for k in known if k.startswith(f"lib{stem}.so") and "@" not in k), stem)
    found = known.get(f"{stem}@{release}", known.get(stem))
    return found if isinstance(found, str) and found else None


def runtime_libraries(package: str, release: str | None) -> tuple[str, ...] | None:
    """The shared libraries that a `-dev` package stands for; None where that is not known."""
    libraries = table("debian")["libraries"]
    found = libraries.get(release, {}).get(package, libraries["bookworm"].get(package))
    return None if found is None else tuple(found)


def is_build_only(package: str) -> bool:
    """Whether a Debian package serves to compile only: a compiler, a build tool, headers."""
    return package.endswith("-dev") or package in table("debian")["build-only"]


# -------------------------------------------------------------------- Python


@dataclass(frozen=True, slots=True)
class PythonPackage:
    """A package of the Python index.

    `kind`: "pure", "compiled" (it has wheels) or "source" (it has none, and compiles). `wheels` is the lowest version from
    which there are wheels for both glibc architectures, by minor version of Python; `musl` the same for musl. `requires` are
    the packages that it needs, `build` the Debian packages that compiling it takes, `libraries` and `programs` what it loads
    and starts at run time without bringing it, `writes` where it writes; `adapts`: compiling it links whatever libraries are
    there.
    """

    name: str
    kind: str
    wheels: Mapping[str, str]
    musl: Mapping[str, str]
    requires: tuple[str, ...]
    build: tuple[str, ...]
    libraries: tuple[str, ...]
    programs: tuple[str, ...]
    writes: tuple[str, ...]
    adapts: bool = False

    def has_wheel(self, version: str | None, python: str | None, *, musl: bool = False) -> bool | None:
        """Whether `version` (None: the newest) installs without a compiler on that minor version of Python; None: not known,
        which it is for everything that the table has not looked at."""
        if self.kind == "pure" or self.name in table("pypi")["optional"]:
            return True
        if self.kind == "source":
            return False
        wheels = self.musl if musl else self.wheels
        lowest = version_of(wheels.get(python or ""))
        if lowest is None:
            return None  # the table says nothing of this Python: neither that there is a wheel nor that there is none
        wanted = version_of(version)
        if version is None or (wanted is not None and wanted >= lowest):
            return True
        older = [v for p, known in wheels.items() if _minor(p) < _minor(python or "") and (v := version_of(known)) is not None]
        is_looked_at = wanted is not None and any(wanted >= bound for bound in older)
        return False if is_looked_at else None  # it has wheels for older Pythons alone, or is older than what was looked at


def _minor(python: str) -> tuple[int, ...]:
    found = version_of(python)
    return found.release if found is not None else ()


def normalized(name: str) -> str:
    """A package name as the Python index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def python_package(name: str) -> PythonPackage | None:
    """What is known of a Python package, by its normalized name."""
    pypi = table("pypi")
    extra = (tuple(pypi["libraries"].get(name, ())), tuple(pypi["programs"].get(name, ())), tuple(pypi["writes"].get(name, ())))
    if name in pypi["pure"]:
        return PythonPackage(name, "pure", {}, {}, tuple(pypi["pure"][name].split()), (), *extra)
    if name in pypi["compiled"]:
        entry = pypi["compiled"][name]
        wheels = {key: value for key, value in entry.items() if re.fullmatch(r"3\.\d+", key)}
        requires = tuple(entry.get("requires", "").split())
        return PythonPackage(name, "compiled", wheels, entry.get("musl", {}), requires, (), *extra)
    if name in pypi["source"]:
        entry = pypi["source"][name]
        libraries = (*entry.get("libraries", ()), *extra[0])
        requires = tuple(entry.get("requires", "").split())
        build, adapts = tuple(entry.get("build", ())), entry.get("adapts") is True
        return PythonPackage(name, "source", {}, {}, requires, build, libraries, *extra[1:], adapts=adapts)
    return None


def python_extra(name: str, extra: str) -> tuple[str, ...] | None:
    """The packages beyond pure Python that an extra of a package adds; None for an extra that the table does not know."""
    found = table("pypi")["extras"].get(f"{name}[{extra}]")
    return None if found is None else tuple(found.split())


def python_package_of_program(program: str) -> str | None:
    """The Python package that has a console script of that name."""
    found = table("pypi")["scripts"].get(program)
    return found if isinstance(found, str) else None


def python_package_of_import(module: str) -> str:
    """The Python package that brings a top-level module; by the module's own name where the table has no other."""
    found = table("pypi")["imports"].get(module)
    return found if isinstance(found, str) else normalized(module)


def closure(names: Iterable[str]) -> frozenset[str]:
    """Packages with all that they need, as far as the table knows them."""
    waiting, found = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            package = python_package(name)
            waiting += package.requires if package is not None else ()
    return frozenset(found)


# -------------------------------------------------------------------- npm and Go


def node_addon(name: str) -> Mapping[str, Any] | None:
    """What is known of an npm package that compiles or downloads a binary when it is installed, or None."""
    found = table("npm")["native"].get(name)
    return found if isinstance(found, dict) else None


def is_builder(package: str) -> bool:
    """Whether an npm package only builds, checks or tests: nothing starts it at run time."""
    name = package if package.startswith("@") and package.count("@") == 1 else package.rpartition("@")[0] or package
    return name in table("npm")["builders"] or name.startswith("@types/")


def is_plain(package: str) -> bool:
    """Whether an npm package is known to be JavaScript alone: it compiles nothing and runs no script when it is installed."""
    return package in table("npm")["plain"]


def node_programs(name: str) -> tuple[str, ...]:
    """The programs that an npm package starts at run time."""
    return tuple(table("npm")["programs"].get(name, ()))


def node_package_of_program(program: str) -> str:
    """The npm package that brings a program into node_modules/.bin."""
    return str(table("npm")["scripts"].get(program, program))


def needs_cgo(module: str) -> bool | None:
    """Whether a Go module does its job only with cgo; None where that is not known."""
    modules = table("gomodules")
    cgo, pure = _longest(module, modules["cgo"]), _longest(module, modules["pure"])
    return None if cgo == pure else cgo > pure


def go_programs(module: str) -> tuple[str, ...]:
    """The programs that a Go module starts at run time."""
    return tuple(table("gomodules").get("starts", {}).get(module, ()))


def _longest(module: str, known: Iterable[str]) -> int:
    """Length of the longest entry that stands for `module`, itself or above it; 0 without one."""
    bare = re.sub(r"/v\d+$", "", module)
    entries = (entry.rstrip("/") for entry in known)
    return max((len(e) for e in entries if e in (module, bare) or module.startswith(f"{e}/")), default=0)
