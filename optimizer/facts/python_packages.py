"""Which Python packages an install brings, and whether it takes a compiler, or libraries that it does not bring itself."""

from __future__ import annotations

import posixpath
import re
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optimizer.facts.commands import PACKAGE_FILE
from optimizer.facts.node import parse_json
from optimizer.facts.packages import PythonPackage, closure, normalized, parts, python_extra, python_package
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.commands import Placed
    from optimizer.facts.images import Image
    from optimizer.facts.manifests import Application
    from optimizer.rewrite import Evidence

_NAME = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?P<rest>.*)$")
_PIN = re.compile(r"===?\s*([\w.+!-]+)\s*(?:$|[,;#\s])")
_BOUND = re.compile(r"(?P<operator><=|<|~=|==)\s*(?P<version>\d[\w.]*?)(?P<any>\.\*)?\s*(?=$|[,;#\s])")
_BELOW = 99_999  # a release number that no real one reaches: what stands for "the newest below"
_FROM_SOURCE = re.compile(r"--no-binary\b|--no-use-wheel\b")
_WHEEL = re.compile(r"-(?P<python>[\w.]+)-(?P<abi>[\w.]+)-(?P<platform>[\w.]+)\.whl$")
# An environment marker of another system than Linux.
_ELSEWHERE = re.compile(r""";.*\b(sys_platform|platform_system|os_name)\s*==\s*["'](win32|Windows|darwin|Darwin|nt)["']\s*$""")
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
        if self.wheels is not None:
            fits = [wheel for wheel in self.wheels if _fits(wheel, python, musl=musl)]
            if fits:
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
    return (re.fullmatch(r"pip[\d.]*", name) is not None and verb == "install") or (
        name in ("uv", "poetry", "pipenv")
        and (verb in ("install", "sync", "add") or plain[:2] in (["pip", "install"], ["pip", "sync"]))
    )


def requirements(application: Application, placed: Placed) -> tuple[Requirement, ...] | None:
    """The packages that an install asks for; None where they cannot all be told."""
    name, args = program(placed.command)
    if name in ("uv", "poetry", "pipenv") and not (name == "uv" and "pip" in args):
        return _locked(application, placed, name)
    seen = application.facts.seen(application.run, f"installs with {name}")
    words = args[args.index("install") + 1 :] if "install" in args else args
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
            listed = _listed(application, placed.path(value))
            if listed is None:
                return None
            if FILE_OPTIONS[name] == "constraints":
                limits |= {one.name: one.version for one in listed if one.version is not None}
            else:
                found += listed
        elif name in ("-e", "--editable"):
            found += _own(application, placed, waiting.pop(0) if waiting else ".", seen)
        elif name in SOURCE_OPTIONS or name in VALUED:
            waiting = waiting if equals else waiting[1:]
        elif not arg.startswith("-"):
            is_own = LOCAL.search(arg) or PACKAGE_FILE.search(arg)
            named = _own(application, placed, arg, seen) if is_own else _requirements(arg, seen)
            if named is None:
                return None
            found += named
    return tuple(replace(one, version=limits.get(one.name)) if one.version is None else one for one in found)


def _requirements(text: str, seen: Evidence) -> list[Requirement] | None:
    """What one requirement asks for, with what its extras add; None where that cannot be told."""
    one = _requirement(text, seen)
    match = _NAME.match(text)
    if one is None or one.origin != "index" or match is None:
        return None if one is None else [one]
    found = [one]
    for extra in filter(None, re.split(r"\s*,\s*", (match["extras"] or "").strip())):
        added = python_extra(one.name, normalized(extra))
        origin = "extra" if added is None else "index"
        found += [Requirement(name, None, seen, origin) for name in added or ("?",)]
    if any(name.name == "psycopg-binary" for name in found):
        found.remove(one)  # it brings its own libpq, and the package itself is pure Python
    return found


def _limit(rest: str) -> str | None:
    """The highest version that a specifier allows; None without a limit."""
    if (pin := _PIN.search(rest)) is not None and "*" not in pin[1]:
        return pin[1]
    for match in _BOUND.finditer(rest):
        numbers = list(parts(match["version"]))
        if match["operator"] == "<=":
            return match["version"]
        if match["operator"] == "~=":
            numbers.pop()
        elif match["operator"] == "<":
            while len(numbers) > 1 and numbers[-1] == 0:
                numbers.pop()
            numbers[-1] -= 1
        elif not match["any"]:
            continue
        return ".".join(map(str, (*numbers, _BELOW)))
    return None


def _requirement(text: str, seen: Evidence) -> Requirement | None:
    if re.match(r"(git|hg|svn|bzr)\+|.*@\s*(git|hg)\+", text):
        egg = re.search(r"egg=([\w.-]+)", text) or re.match(r"([\w.-]+)\s*(?:\[|@)", text)
        return Requirement(normalized(egg[1]) if egg else "?", None, seen, "vcs")
    if (address := re.match(r"https?://.*/([A-Za-z0-9]+)[^/]*$", text)) is not None:
        return Requirement(normalized(address[1]), None, seen, "path")
    match = _NAME.match(text)
    if match is None or "$" in text:
        return None
    if "://" in text:
        return Requirement(normalized(match[1]), None, seen, "path")
    return Requirement(normalized(match[1]), _limit(match["rest"]), seen)


def _listed(application: Application, container: str | None, depth: int = 0) -> list[Requirement] | None:
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
                nested = _listed(application, posixpath.normpath(posixpath.join(posixpath.dirname(container), rest)), depth + 1)
                if nested is None:
                    return None
                found += nested
        elif name in ("-e", "--editable") or LOCAL.search(line):
            found.append(
                _requirement(rest, seen) or Requirement("?", None, seen, "path")
                if "://" in line
                else Requirement("?", None, seen, "path")
            )
        elif _FROM_SOURCE.search(line):
            return None
        elif not line.startswith("-") and not _ELSEWHERE.search(line):
            one = _requirements(re.split(r"\s--hash|\s;|;", line)[0].strip(), seen)
            if one is None:
                return None
            found += one
    return found


def _own(application: Application, placed: Placed, target: str, seen: Evidence) -> list[Requirement]:
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
    lines = [(str(d).partition(";")[0].strip(), application.line(path, str(d), "names it")) for d in dependencies]
    unknown = Requirement("?", None, seen, "path")
    return [one for text, line in lines for one in (_requirements(text, line) or [unknown])]


# -------------------------------------------------------------------- lock files


def _locked(application: Application, placed: Placed, tool: str) -> tuple[Requirement, ...] | None:
    """The packages of a lock file, with the wheels that it lists."""
    file = {"uv": "uv.lock", "poetry": "poetry.lock", "pipenv": "Pipfile.lock"}[tool]
    path = application.source(placed.path(file))
    text = application.context.read(path) if path is not None else None
    if path is None or text is None:
        return None
    if file == "Pipfile.lock":
        table = parse_json(text)
        default = table.get("default") if table is not None else None
        entries = default.items() if isinstance(default, dict) else ()
        return tuple(_of_pipfile(application, path, str(name), entry) for name, entry in entries)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    return tuple(_of_lock(application, path, entry) for entry in table.get("package", ()) if not _is_project(entry))


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


def _fits(wheel: str, python: str | None, *, musl: bool) -> bool:
    """Whether a wheel installs on Linux for x86-64 with that minor version of Python."""
    match = _WHEEL.search(wheel)
    if match is None:
        return False
    platforms = match["platform"].split(".")
    if "any" not in platforms:
        kind = "musllinux" if musl else "manylinux"
        if not any(p.startswith(kind) and p.endswith("x86_64") for p in platforms):
            return False
    pythons = match["python"].split(".")
    if any(p in ("py3", "py2.py3") for p in pythons) or (match["abi"] == "abi3" and python is None):
        return True
    if python is None:
        return False
    number = int(python.partition(".")[2])
    exact = f"cp3{number}" in pythons
    older = match["abi"] == "abi3" and any(int(m[1]) <= number for p in pythons if (m := re.fullmatch(r"cp3(\d+)", p)))
    return exact or older


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
    for requirement in found:
        verdict = requirement.needs_no_compiler(python, musl=musl)
        if requirement.origin == "index" and verdict is not True and requirement.name not in _TOOLS:
            yield requirement, verdict
        elif requirement.origin != "index":
            yield requirement, None
        else:
            asked = {one.name for one in found}
            for name in sorted(closure([requirement.name]) - asked):
                package = python_package(name)
                if package is not None and package.has_wheel(None, python, musl=musl) is False:
                    yield replace(requirement, name=name, version=None), False


def python_version(base: Image) -> str | None:
    """The minor version of Python in an image, such as "3.11"."""
    match = re.match(r"3\.\d+", base.version or "") if base.name == "python" else None
    return match[0] if match else None
