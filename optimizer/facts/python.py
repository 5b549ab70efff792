"""Python: requirements files, pyproject.toml and lock files, and what pip, Poetry, uv and Pipenv read of them."""

from __future__ import annotations

import posixpath
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optimizer.facts.commands import is_path
from optimizer.facts.manifests import Inputs, ManifestFile, NeedsSources, upwards
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.shell import Command
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application, Project
    from optimizer.rewrite import Evidence

FILE_OPTIONS = {
    "-r": "requirements",
    "--requirement": "requirements",
    "-c": "constraints",
    "--constraint": "constraints",
}
SOURCE_OPTIONS = ("-e", "--editable", "-f", "--find-links")
# Options of pip that take the next word as their value.
VALUED = frozenset(
    """-i --index-url --extra-index-url --src --python --platform --python-version --implementation
    --abi --trusted-host --timeout --retries --proxy --log --cache-dir --progress-bar --upgrade-strategy -C
    --config-settings --global-option --no-binary --only-binary --report --use-feature --index-strategy -p""".split()
)
LOCAL = re.compile(
    r"^(\.{0,2}/|~/|\.{1,2}$|\.\[|file:)|@\s*(file:|\.{0,2}/)|^(?!\S+://)[^\s@=<>!~;\[]*/|^(?!\S+://)\S+\.(whl|tgz|zip|tar\.\w+)(?=\s|;|$)"
)
# Environment variables by which pip and uv are told of more files.
_TELLING = re.compile(r"(PIP|UV)_(CONSTRAINT|REQUIREMENT|FIND_LINKS|CONFIG_FILE|BUILD_CONSTRAINT|EDITABLE|CERT|OVERRIDE)S?=")
_ELSEWHERE = ("--directory", "--project", "-C", "-P")
_MAX_DEPTH = 12


def program(command: Command) -> tuple[str, tuple[str, ...]]:
    """The program of a command and its arguments; `python -m pip` is pip, and so for the other package managers."""
    name, args = command.name or "", command.args
    is_module = re.fullmatch(r"python[\d.]*", name) and args[:1] == ("-m",) and args[1:2] != ()
    return (args[1], args[2:]) if is_module and args[1] in ("pip", "poetry", "pipenv", "uv") else (name, args)


def installs_by_name(command: Command) -> bool:
    """Whether a command is a `pip install` of packages that all come from an index."""
    name, args = program(command)
    plain = [arg for arg in args if not arg.startswith("-")]
    files = any(re.match(r"-r|-c|-e|--requirement|--constraint|--editable|-f|--find-links", arg) for arg in args)
    local = any(is_path(n) or ("/" in n and "://" not in n) for n in plain[1:])
    return name in ("pip", "pip3") and plain[:1] == ["install"] and len(plain) > 1 and not files and not local


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What a pip, uv, Poetry or Pipenv install reads, or None for another command."""
    name, args = program(placed.command)
    plain = [arg for arg in args if not arg.startswith("-")]
    verb = plain[0] if plain else ""
    if name in ("pip", "pip3", "uv") and (told := application.setting(placed, _TELLING)):
        return NeedsSources(f"{told} names a file that is read as well") if verb in ("install", "sync", "pip") else None
    if name in ("uv", "poetry") and any(arg.partition("=")[0] in _ELSEWHERE for arg in args) and verb in ("sync", "install"):
        return NeedsSources(f"`{placed.command}` works on a folder that its options name")
    if re.fullmatch(r"pip[\d.]*", name) and verb == "install":
        return _pip(application, placed, args[args.index("install") + 1 :])
    if name == "uv" and plain[:2] == ["pip", "install"]:
        return _with_uv_settings(application, placed, _pip(application, placed, args[args.index("install") + 1 :]))
    if name == "uv" and verb == "sync":
        return _uv(application, placed, args)
    if name == "poetry" and verb == "install":
        return _poetry(application, placed, args)
    if name == "pipenv" and verb in ("install", "sync") and len(plain) == 1:
        return _pipenv(application, placed)
    return None


# -------------------------------------------------------------------- pip


def _pip(application: Application, placed: Placed, args: tuple[str, ...]) -> Inputs | NeedsSources | None:
    files: dict[str, ManifestFile] = {}
    here: list[Evidence] = []
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        option, equals, value = read_option(arg)
        if option in FILE_OPTIONS:
            value = value if equals else (waiting.pop(0) if waiting else "")
            found = _requirements(application, placed.path(value), value, files)
            if isinstance(found, NeedsSources):
                return found
            here += found
        elif option.startswith(SOURCE_OPTIONS) and not option.startswith("--ex"):
            return NeedsSources(f"pip reads {arg} {waiting[0] if waiting else ''}".rstrip() + " from the sources")
        elif option in ("--cert", "--client-cert"):
            return NeedsSources("pip reads a certificate from the sources")
        elif option in ("-t", "--target", "--prefix", "--root"):
            return NeedsSources(f"pip installs into a folder of its own ({arg}), which the sources could overwrite")
        elif option in VALUED:
            waiting = waiting if equals else waiting[1:]
        elif not arg.startswith("-") and LOCAL.search(arg):
            return NeedsSources(f"`pip install {arg}` builds the sources: before them it would install an empty package")
    if not files:
        return None
    return Inputs("pip install", tuple(files.values()), tuple(here))


def _with_uv_settings(
    application: Application, placed: Placed, found: Inputs | NeedsSources | None
) -> Inputs | NeedsSources | None:
    """The files of a `uv pip install`, and with them uv's own settings, which can constrain what is installed."""
    if not isinstance(found, Inputs):
        return found
    # uv takes the settings of the nearest folder above that has some
    paths = [posixpath.join(folder, name) for folder in upwards(placed.cwd or "/") for name in ("uv.toml", "pyproject.toml")]
    more = [ManifestFile(source, path) for path in paths if (source := application.source(path)) is not None]
    return replace(found, files=(*found.files, *more))


def read_option(arg: str) -> tuple[str, str, str]:
    """An argument as option, "=" if a value is attached, and that value: `-rfile`, `--requirement=file`, `-r`."""
    if arg.startswith("--"):
        return arg.partition("=")
    if re.match(r"-[rce]\S", arg):
        return arg[:2], "=", arg[2:]
    return arg, "", ""


def _requirements(
    application: Application, container_path: str | None, shown: str, files: dict[str, ManifestFile], depth: int = 0
) -> list[Evidence] | NeedsSources:
    """Read a requirements file and those that it names into `files`."""
    path = application.source(container_path)
    text = application.context.read(path) if path is not None else None
    if path is not None and not re.search(r"\.(txt|in|pip|req)$|requirements", path):
        return NeedsSources(f"{shown} is no list of requirements: resolving it can take the sources")
    if path is None or text is None or container_path is None:
        return NeedsSources(f"{shown} is not in the build context, or is a link", is_missing=True)
    if path in files or depth > _MAX_DEPTH:
        return []
    files[path] = ManifestFile(path, container_path)
    found: list[Evidence] = []
    for number, line in logical_lines(text):
        option, rest = split_option(line)
        seen = application.facts.seen_in(path, "names something else", line=number, excerpt=line[:120])
        if option in FILE_OPTIONS and "://" not in rest:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(container_path), rest))
            nested = _requirements(application, target, rest, files, depth + 1)
            if isinstance(nested, NeedsSources):
                return NeedsSources(nested.reason, (seen, *nested.evidence))
            found += nested
        elif (option in SOURCE_OPTIONS and "://" not in rest) or (not option.startswith("-") and LOCAL.search(line)):
            return NeedsSources(f"{path} installs from the sources: {line}", (seen,))
    names = application.facts.seen_in(path, "names packages, and no path of the sources")
    return [names, *found]


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The logical lines of a requirements file without comments, with the numbers that they start at."""
    pending, start = "", 0
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        start = start if pending else number
        stripped = re.sub(r"(^|\s)#.*$", "", line).strip()
        if stripped.endswith("\\"):
            pending += stripped[:-1] + " "
            continue
        whole = (pending + stripped).strip()
        pending = ""
        if whole:
            yield start, whole
    if pending.strip():
        yield start, pending.strip()


def split_option(line: str) -> tuple[str, str]:
    match = re.match(r"(--?[a-z][a-z-]*)(?:\s*=\s*|\s+|(?=[^a-z=\s-]))(.*)", line)
    return (match[1], match[2].strip()) if match else (line, "")


# -------------------------------------------------------------------- pyproject.toml


def _project_table(application: Application, placed: Placed, what: str) -> tuple[Project, dict[str, Any]] | NeedsSources:
    """The project that a command works on, and its pyproject.toml."""
    project = application.project(placed, "pyproject.toml")
    try:
        table = tomllib.loads(project.read("pyproject.toml") or "") if project is not None else {}
    except tomllib.TOMLDecodeError:
        table = {}
    if project is None or not table:
        return NeedsSources(f"`{what}` runs where no readable pyproject.toml of the build context is", is_missing=True)
    return _own_environment(project) or (project, table)


def _own_environment(project: Project) -> NeedsSources | None:
    if not project.has(".venv"):
        return None
    return NeedsSources(".venv of the build context would overwrite the one that the install makes")


def _poetry(application: Application, placed: Placed, args: tuple[str, ...]) -> Inputs | NeedsSources:
    found = _project_table(application, placed, "poetry install")
    if isinstance(found, NeedsSources):
        return found
    project, table = found
    seen = application.facts.seen_in(project.source("pyproject.toml"), "names the dependencies")
    settings = table.get("tool", {}).get("poetry", {})
    if _has_path(settings) or "file:" in str(table.get("project", {}).get("dependencies", "")):
        return NeedsSources("pyproject.toml has a dependency in a folder of the sources", (seen,))
    files = project.files("pyproject.toml", "poetry.lock", "poetry.toml")
    if "--no-root" in args or settings.get("package-mode") is False:
        return Inputs("poetry install", files, (seen,))
    return _prefetched("poetry install", "--no-root", files, seen, placed)


def _uv(application: Application, placed: Placed, args: tuple[str, ...]) -> Inputs | NeedsSources:
    found = _project_table(application, placed, "uv sync")
    if isinstance(found, NeedsSources):
        return found
    project, table = found
    seen = application.facts.seen_in(project.source("pyproject.toml"), "names the dependencies")
    settings = table.get("tool", {}).get("uv", {})
    names_files = re.search(r"file:|'\.{1,2}/|@\s*\.{0,2}/", str([table.get("project", {}), settings]))
    if _has_path(settings.get("sources", {})) or "workspace" in settings or "find-links" in settings or names_files:
        return NeedsSources("pyproject.toml has a dependency or a member in a folder of the sources", (seen,))
    if not project.has("uv.lock"):
        return NeedsSources("without uv.lock, uv reads the project itself to resolve it", (seen,))
    files = project.files("pyproject.toml", "uv.lock", "uv.toml", ".python-version")
    dynamic = table.get("project", {}).get("dynamic", [])
    if {"dependencies", "optional-dependencies"} & set(dynamic):
        return NeedsSources("the sources decide the dependencies: pyproject.toml calls them dynamic", (seen,))
    if "--no-install-project" in args or ("build-system" not in table and settings.get("package") is not True):
        return Inputs("uv sync", files, (seen,))
    if dynamic and "--frozen" not in args:
        return NeedsSources("pyproject.toml has dynamic fields, which the sources decide", (seen,))
    return _prefetched("uv sync", "--no-install-project", files, seen, placed)


def _prefetched(what: str, flag: str, files: tuple[ManifestFile, ...], seen: Evidence, placed: Placed) -> Inputs:
    """An install that goes on to install the project itself: with `flag`, the dependencies come first."""
    program = placed.command.name
    unsure = Check(f"`{what} {flag}` does without every source file", holds=None)
    return Inputs(
        f"{what} {flag}",
        files,
        (seen,),
        (unsure,),
        prefetch=f"{placed.command} {flag}",
        done_by=lambda other: other.command.name == program and flag in other.command.args,
        folder=placed.cwd,
    )


def _pipenv(application: Application, placed: Placed) -> Inputs | NeedsSources:
    project = application.project(placed, "Pipfile")
    text = project.read("Pipfile") if project is not None else None
    if project is None or text is None:
        return NeedsSources("pipenv runs where no readable Pipfile of the build context is", is_missing=True)
    if refusal := _own_environment(project):
        return refusal
    path = project.source("Pipfile")
    if re.search(r"\b(path|file|editable)\s*=", text):
        return NeedsSources("Pipfile has a dependency in a folder of the sources", (application.line(path, "=", "names it"),))
    seen = application.facts.seen_in(path, "names packages, and no path of the sources")
    return Inputs("pipenv install", project.files("Pipfile", "Pipfile.lock"), (seen,))


def _has_path(value: object) -> bool:
    """Whether a table of dependencies has one with a `path`."""
    if isinstance(value, dict):
        return any((key in ("path", "file") and isinstance(item, str)) or _has_path(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_path(item) for item in value)
