"""Which Python packages an install brings, and whether it takes a compiler, or libraries that it does not bring itself."""

from __future__ import annotations

import posixpath
import re
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optimizer.facts.commands import PACKAGE_FILE
from optimizer.facts.images import newest_minor
from optimizer.facts.node import parse_json
from optimizer.facts.packages import PythonPackage, closure, normalized, python_extra, python_package, table
from optimizer.facts.python import (
    FILE_OPTIONS,
    LOCAL,
    SOURCE_OPTIONS,
    VALUED,
    logical_lines,
    program,
    read_option,
    split_option,
)
from optimizer.facts.wheels import applies, fits, highest, requirement, version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.commands import Placed
    from optimizer.facts.images import Image
    from optimizer.facts.manifests import Application
    from optimizer.rewrite import Evidence

_FROM_SOURCE = re.compile(r"--no-binary\b|--no-use-wheel\b")
_REPOSITORY = re.compile(r"(git|hg|svn|bzr)\+|.*@\s*(git|hg)\+")
_ARCHIVE_NAME = re.compile(r"https?://.*/([A-Za-z0-9]+)[^/]*$")
# What makes pip fetch packages, and build those without a wheel.
_VERBS = frozenset({"install", "wheel", "download"})
_TOOLS = frozenset({"pip", "setuptools", "wheel", "poetry", "pipenv", "uv", "virtualenv", "pip-tools"})
_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that an install asks for.

    `version` is the highest that is allowed, None without a limit. `wheels` are the file names that a lock file lists; None
    where none does. `origin` is "index", "vcs" for a repository, "path" for sources of the build context, "extra" for what an
    extra adds that is not in our table.
    """

    name: str
    version: str | None
    seen: Evidence
    origin: str = "index"
    wheels: tuple[str, ...] | None = None

    def needs_no_compiler(self, python: str | None, *, musl: bool = False) -> bool | None:
        """Whether it installs without a compiler on that minor version of Python; None where that is not known."""
        if self.origin == "path":
            return None
        if self.wheels is not None and python is not None and any(fits(wheel, python, musl=musl) for wheel in self.wheels):
            return True
        package = python_package(self.name)
        if package is not None:
            return package.has_wheel(self.version, python, musl=musl)
        return None


def is_install(placed: Placed) -> bool:
    """Whether a command installs Python packages."""
    name, args = program(placed.command)
    plain = [arg for arg in args if not arg.startswith("-")]
    verb = plain[0] if plain else ""
    return (re.fullmatch(r"pip[\d.]*", name) is not None and verb in _VERBS) or (
        name in ("uv", "poetry", "pipenv")
        and (verb in ("install", "sync", "add") or plain[:2] in (["pip", "install"], ["pip", "sync"]))
    )


def requirements(application: Application, placed: Placed) -> tuple[Requirement, ...] | None:
    """The packages that an install asks for; None where they cannot all be told."""
    name, args = program(placed.command)
    if name in ("uv", "poetry", "pipenv") and not (name == "uv" and "pip" in args):
        return _locked(application, placed, name)
    seen = application.facts.seen(application.run, f"installs with {name}")
    verb = next((word for word in args if word in _VERBS), None)
    words = args[args.index(verb) + 1 :] if verb is not None else args
    python = _python_of(application)
    if any(_FROM_SOURCE.match(word) for word in words) or "PIP_NO_BINARY" in application.variables:
        return None
    found: list[Requirement] = []
    limits: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        arg = waiting.pop(0)
        name, equals, value = read_option(arg)
        if name in FILE_OPTIONS:
            value = value if equals else (waiting.pop(0) if waiting else "")
            listed = _listed(application, placed.path(value), python)
            if listed is None:
                return None
            if FILE_OPTIONS[name] == "constraints":
                limits |= {one.name: one.version for one in listed if one.version is not None}  # a package is listed once
            else:
                found += listed
        elif name in ("-e", "--editable"):
            found += _own(application, placed, waiting.pop(0) if waiting else ".", seen, python)
        elif name in SOURCE_OPTIONS or name in VALUED:
            waiting = waiting if equals else waiting[1:]
        elif not arg.startswith("-"):
            is_own = LOCAL.search(arg) or PACKAGE_FILE.search(arg)
            named = _own(application, placed, arg, seen, python) if is_own else _requirements(arg, seen, python)
            if named is None:
                return None
            found += named
    return tuple(replace(one, version=_lower(one.version, limits.get(one.name))) for one in found)


def _lower(one: str | None, other: str | None) -> str | None:
    """The lower of two limits."""
    known = [(bound, text) for text in (one, other) if text is not None and (bound := version(text)) is not None]
    return min(known)[1] if known else one or other


def _python_of(application: Application) -> str | None:
    """The minor version of Python of the image that a command runs in."""
    base = application.facts.image(application.facts.document.stage_of(application.run))
    return python_version(base) if base is not None else None


def _requirements(text: str, seen: Evidence, python: str | None) -> list[Requirement] | None:
    """What one requirement asks for, with what its extras add: nothing where its marker speaks of other machines, None where it
    cannot be told."""
    if _REPOSITORY.match(text):
        egg = re.search(r"egg=([\w.-]+)", text) or re.match(r"([\w.-]+)\s*(?:\[|@)", text)
        return [Requirement(normalized(egg[1]) if egg else "?", None, seen, "vcs")]
    if (address := _ARCHIVE_NAME.match(text)) is not None:
        return [Requirement(normalized(address[1]), None, seen, "path")]
    asked = requirement(text) if "$" not in text else None
    if asked is None:
        return None
    name = normalized(asked.name)
    if not applies(asked.marker, python):
        return []
    if asked.url is not None:
        return [Requirement(name, None, seen, "path")]
    found = [Requirement(name, highest(asked.specifier), seen)]
    for extra in sorted(asked.extras):
        added = python_extra(name, normalized(extra))
        origin = "extra" if added is None else "index"
        found += [Requirement(other, None, seen, origin) for other in added or ("?",)]
    if any(one.name == "psycopg-binary" for one in found):
        del found[0]  # it brings its own libpq, and the package itself is pure Python
    return found


def _listed(application: Application, container: str | None, python: str | None, depth: int = 0) -> list[Requirement] | None:
    """The packages of a requirements file and of those that it names; None where one is not in the build context."""
    path = application.source(container)
    text = application.context.read(path) if path is not None else None
    if path is None or text is None or container is None or depth > _MAX_DEPTH:
        return None
    found: list[Requirement] = []
    for number, line in logical_lines(text):
        seen = application.facts.seen_in(path, "names it", line=number, excerpt=line[:100])
        name, rest = split_option(line)
        if name in FILE_OPTIONS:
            if FILE_OPTIONS[name] == "requirements":
                inner = posixpath.normpath(posixpath.join(posixpath.dirname(container), rest))
                nested = _listed(application, inner, python, depth + 1)
                if nested is None:
                    return None
                found += nested
        elif name in ("-e", "--editable") or LOCAL.search(line):
            named = _requirements(rest, seen, python) if "://" in line else None
            found += named or [Requirement("?", None, seen, "path")]
        elif _FROM_SOURCE.search(line):
            return None
        elif not line.startswith("-"):
            one = _requirements(re.split(r"\s--\w", line)[0].strip(), seen, python)
            if one is None:
                return None
            found += one
    return found


def _own(application: Application, placed: Placed, target: str, seen: Evidence, python: str | None) -> list[Requirement]:
    """The application itself as a package, and what its pyproject.toml asks for."""
    bare = re.sub(r"\[.*\]$", "", target).removeprefix("file:")
    source = application.source(placed.path(bare))
    path = None if source is None else posixpath.join(source, "pyproject.toml") if source else "pyproject.toml"
    text = application.context.read(path) if path is not None else None
    if text is None or path is None or target.startswith(("git+", "http")):
        return [Requirement("?", None, seen, "path")]
    try:
        project = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return [Requirement("?", None, seen, "path")]
    backend = str(project.get("build-system", {}).get("requires", ""))
    compiles = re.search(
        r"cython|maturin|setuptools-rust|scikit-build|meson|pybind|nanobind|cffi|numpy", backend, re.IGNORECASE
    )
    dependencies = project.get("project", {}).get("dependencies")
    if compiles or not isinstance(dependencies, list) or "setup.py" in application.context.names(source or ""):
        return [Requirement("?", None, seen, "path")]
    lines = [(str(d), application.line(path, str(d), "names it")) for d in dependencies]
    unknown = Requirement("?", None, seen, "path")
    named = [(_requirements(text, line, python), line) for text, line in lines]
    return [one for found, _ in named for one in ([unknown] if found is None else found)]


# -------------------------------------------------------------------- lock files


def _locked(application: Application, placed: Placed, tool: str) -> tuple[Requirement, ...] | None:
    """The packages of a lock file, with the wheels that it lists."""
    file = {"uv": "uv.lock", "poetry": "poetry.lock", "pipenv": "Pipfile.lock"}[tool]
    python = _python_of(application)
    path = application.source(placed.path(file))
    text = application.context.read(path) if path is not None else None
    if path is None or text is None:
        return None
    if file == "Pipfile.lock":
        table = parse_json(text)
        default = table.get("default") if table is not None else None
        entries = default.items() if isinstance(default, dict) else ()
        wanted = [(str(name), entry) for name, entry in entries if _is_for(entry, python)]
        return tuple(_of_pipfile(application, path, name, entry) for name, entry in wanted)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    locked = table.get("package", [])
    if not isinstance(locked, list) or not all(isinstance(entry, dict) for entry in locked):
        return None
    used = (entry for entry in locked if not _is_project(entry) and _is_for(entry, python))
    return tuple(_of_lock(application, path, entry) for entry in used)


def _is_for(entry: Any, python: str | None) -> bool:
    """Whether what a lock file lists is installed here, by its marker; without one it is."""
    marker = entry.get("markers") if isinstance(entry, dict) else None
    return not isinstance(marker, str) or applies(marker, python)


def _of_pipfile(application: Application, path: str, name: str, entry: Any) -> Requirement:
    version = str(entry.get("version", "")).removeprefix("==") if isinstance(entry, dict) else ""
    origin = "vcs" if isinstance(entry, dict) and "git" in entry else "index"
    return Requirement(normalized(name), version or None, application.line(path, f'"{name}"', "locks it"), origin)


def _is_project(entry: dict[str, Any]) -> bool:
    source = entry.get("source", {})
    return isinstance(source, dict) and any(key in source for key in ("virtual", "editable"))


def _of_lock(application: Application, path: str, entry: dict[str, Any]) -> Requirement:
    name = str(entry.get("name", "?"))
    seen = application.line(path, f'name = "{name}"', "locks it")
    source = entry.get("source", {})
    wheels = [
        str(w.get("url", w.get("filename", ""))).rpartition("/")[2] for w in entry.get("wheels", ()) if isinstance(w, dict)
    ]
    wheels += [str(f.get("file", "")) for f in entry.get("files", ()) if isinstance(f, dict)]
    origin = "vcs" if isinstance(source, dict) and ("git" in source or source.get("type") == "git") else "index"
    listed = tuple(w for w in wheels if w.endswith(".whl"))
    return Requirement(normalized(name), str(entry.get("version", "")) or None, seen, origin, listed if wheels else None)


# -------------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class Installed:
    """What the installs of a stage come to.

    `asked` are the packages named, `packages` those with all that they need, as far as the table knows them, `unknown` those
    that it does not know.
    """

    asked: tuple[Requirement, ...]
    packages: tuple[PythonPackage, ...]
    unknown: tuple[str, ...]

    def seen(self, name: str) -> tuple[Evidence, ...]:
        """The line that asks for a package, or for one that needs it."""
        by_name = [r.seen for r in self.asked if r.name == name]
        return tuple(by_name or [r.seen for r in self.asked if name in closure([r.name])][:1])


def installed(found: tuple[Requirement, ...]) -> Installed:
    """The packages that `found` come to, with those that they need."""
    names = closure(r.name for r in found if r.origin == "index")
    known = tuple(p for name in sorted(names) if (p := python_package(name)) is not None)
    return Installed(found, known, tuple(sorted(n for n in names if python_package(n) is None and n not in _TOOLS)))


def compiled(
    found: tuple[Requirement, ...], python: str | None, *, musl: bool = False
) -> Iterator[tuple[Requirement, bool | None]]:
    """The requirements that take a compiler (False), or of which that is not known (None), with what they need."""
    for one in found:
        verdict = one.needs_no_compiler(python, musl=musl)
        if one.origin == "index" and verdict is not True and one.name not in _TOOLS:
            yield one, verdict
        elif one.origin != "index":
            yield one, None
        else:
            asked = {other.name for other in found}
            for name in sorted(closure([one.name]) - asked):
                package = python_package(name)
                verdict = package.has_wheel(None, python, musl=musl) if package is not None else True
                if verdict is not True:
                    yield replace(one, name=name, version=None), verdict


def python_version(base: Image) -> str | None:
    """The minor version of the Python in an image, such as "3.11": of the image itself, or the distribution's own; None where
    that is not known."""
    if base.name != "python":
        family = table("tools")["python"].get(base.distribution, {})
        return family.get(base.release) if base.release is not None else None
    match = re.match(r"\d+\.\d+", base.version or "")
    if match is not None:
        return match[0]
    return {None: newest_minor(base.name), "3": newest_minor(base.name), "2": "2.7"}.get(base.version)
