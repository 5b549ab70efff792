"""Python: requirements files, pyproject.toml and lock files, and what pip, Poetry, uv and Pipenv read of them."""

from __future__ import annotations

import posixpath
import re
import tomllib
from typing import TYPE_CHECKING, Any

from optimizer.facts.manifests import Inputs, NeedsSources
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application
    from optimizer.rewrite import Evidence

_FILE_OPTIONS = {"-r": "requirements", "--requirement": "requirements", "-c": "constraints", "--constraint": "constraints"}
_SOURCE_OPTIONS = ("-e", "--editable", "-f", "--find-links")
# Options of pip that take the next word as their value.
_VALUED = frozenset(
    """-i --index-url --extra-index-url -t --target --root --prefix --src --python --platform --python-version --implementation
    --abi --trusted-host --timeout --retries --proxy --cert --log --cache-dir --progress-bar --upgrade-strategy -C
    --config-settings --global-option --no-binary --only-binary --report --use-feature --index-strategy -p""".split()
)
_LOCAL = re.compile(r"^(\.{0,2}/|~/|\.{1,2}$|\.\[|file:)|@\s*(file:|\.{0,2}/)")
_MAX_DEPTH = 12


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What a pip, uv, Poetry or Pipenv install reads, or None for another command."""
    name, args = placed.command.name or "", placed.command.args
    if re.fullmatch(r"python[\d.]*", name) and args[:2] in (("-m", "pip"), ("-m", "poetry"), ("-m", "pipenv"), ("-m", "uv")):
        name, args = args[1], args[2:]
    plain = [arg for arg in args if not arg.startswith("-")]
    verb = plain[0] if plain else ""
    if re.fullmatch(r"pip[\d.]*", name) and verb == "install":
        return _pip(application, placed, args[args.index("install") + 1 :])
    if name == "uv" and plain[:2] == ["pip", "install"]:
        return _pip(application, placed, args[args.index("install") + 1 :])
    if name == "uv" and verb == "sync":
        return _uv(application, placed, args)
    if name == "poetry" and verb == "install":
        return _poetry(application, placed, args)
    if name == "pipenv" and verb in ("install", "sync") and len(plain) == 1:
        return _pipenv(application, placed)
    return None


# -------------------------------------------------------------------- pip


def _pip(application: Application, placed: Placed, args: tuple[str, ...]) -> Inputs | NeedsSources | None:
    files: dict[str, None] = {}
    here: list[Evidence] = []
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        option, equals, value = arg.partition("=") if arg.startswith("--") else (arg, "", "")
        if option in _FILE_OPTIONS:
            value = value if equals else (waiting.pop(0) if waiting else "")
            found = _requirements(application, placed.path(value), value, files)
            if isinstance(found, NeedsSources):
                return found
            here += found
        elif option.startswith(_SOURCE_OPTIONS) and not option.startswith("--ex"):
            return NeedsSources(f"pip reads {arg} {waiting[0] if waiting else ''}".rstrip() + " from the sources")
        elif option in _VALUED:
            waiting = waiting if equals else waiting[1:]
        elif not arg.startswith("-") and (_LOCAL.search(arg) or arg.endswith((".whl", ".tar.gz", ".zip"))):
            return NeedsSources(f"`pip install {arg}` builds the sources: before them it would install an empty package")
    if not files:
        return None
    return Inputs("pip install", tuple(files), tuple(here))


def _requirements(
    application: Application, container_path: str | None, shown: str, files: dict[str, None], depth: int = 0
) -> list[Evidence] | NeedsSources:
    """Read a requirements file and those that it names into `files`."""
    path = application.source(container_path)
    text = application.context.read(path) if path is not None else None
    if path is None or text is None or container_path is None:
        return NeedsSources(f"{shown} is not in the build context, or is a link")
    if path in files or depth > _MAX_DEPTH:
        return []
    files[path] = None
    found: list[Evidence] = []
    for number, line in _lines(text):
        option, rest = _split_option(line)
        seen = application.facts.seen_in(path, "names something else", line=number, excerpt=line[:120])
        if option in _FILE_OPTIONS and "://" not in rest:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(container_path), rest))
            nested = _requirements(application, target, rest, files, depth + 1)
            if isinstance(nested, NeedsSources):
                return NeedsSources(nested.reason, (seen, *nested.evidence))
            found += nested
        elif option in _SOURCE_OPTIONS and "://" not in rest:
            return NeedsSources(f"{path} installs from the sources: {line}", (seen,))
        elif not option.startswith("-") and _LOCAL.search(line):
            return NeedsSources(f"{path} installs from the sources: {line}", (seen,))
    names = application.facts.seen_in(path, "names packages, and no path of the sources")
    return [names, *found]


def _lines(text: str) -> Iterator[tuple[int, str]]:
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


def _split_option(line: str) -> tuple[str, str]:
    match = re.match(r"(--?[a-z][a-z-]*)(?:\s*=\s*|\s+|(?=[^a-z=\s-]))(.*)", line)
    return (match[1], match[2].strip()) if match else (line, "")


# -------------------------------------------------------------------- pyproject.toml


def _pyproject(application: Application, folder: str) -> dict[str, Any] | None:
    text = application.context.read(posixpath.join(folder, "pyproject.toml"))
    try:
        return None if text is None else tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None  # unreadable: the caller says so


def _project_inputs(
    application: Application, placed: Placed, what: str, extra: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, Any], Evidence] | NeedsSources:
    """The manifests of a project in the folder of the command, its pyproject.toml, and the evidence for it."""
    folder = application.folder(placed)
    table = _pyproject(application, folder) if folder is not None else None
    if folder is None or table is None:
        return NeedsSources(f"{what} runs where no readable pyproject.toml of the build context is")
    path = posixpath.join(folder, "pyproject.toml")
    if application.context.kind(posixpath.join(folder, ".venv")) is not None:
        return NeedsSources(".venv of the build context would overwrite the one that the install makes")
    return application.present(folder, ("pyproject.toml", *extra)), table, application.facts.seen_in(path, "names the dependencies")


def _poetry(application: Application, placed: Placed, args: tuple[str, ...]) -> Inputs | NeedsSources:
    found = _project_inputs(application, placed, "poetry install", ("poetry.lock", "poetry.toml"))
    if isinstance(found, NeedsSources):
        return found
    files, table, seen = found
    settings = table.get("tool", {}).get("poetry", {})
    if _has_path(settings) or "file:" in str(table.get("project", {}).get("dependencies", "")):
        return NeedsSources("pyproject.toml has a dependency in a folder of the sources", (seen,))
    if "--no-root" in args or settings.get("package-mode") is False:
        return Inputs("poetry install", files, (seen,))
    unsure = Check("`poetry install --no-root` does without every source file", holds=None)
    command = f"{placed.command} --no-root"
    return Inputs(
        "poetry install", files, (seen,), (unsure,), prefetch=command, done_by=_runs("poetry", "--no-root"), folder=placed.cwd
    )


def _uv(application: Application, placed: Placed, args: tuple[str, ...]) -> Inputs | NeedsSources:
    found = _project_inputs(application, placed, "uv sync", ("uv.lock", "uv.toml", ".python-version"))
    if isinstance(found, NeedsSources):
        return found
    files, table, seen = found
    settings = table.get("tool", {}).get("uv", {})
    if _has_path(settings.get("sources", {})) or "workspace" in settings:
        return NeedsSources("pyproject.toml has a dependency or a member in a folder of the sources", (seen,))
    if not any(file.endswith("uv.lock") for file in files):
        return NeedsSources("without uv.lock, uv reads the project itself to resolve it", (seen,))
    if "--no-install-project" in args or ("build-system" not in table and settings.get("package") is not True):
        return Inputs("uv sync", files, (seen,))
    if table.get("project", {}).get("dynamic") and "--frozen" not in args:
        return NeedsSources("pyproject.toml has dynamic fields, which the sources decide", (seen,))
    unsure = Check("`uv sync --no-install-project` does without every source file", holds=None)
    command = f"{placed.command} --no-install-project"
    return Inputs(
        "uv sync", files, (seen,), (unsure,), prefetch=command, done_by=_runs("uv", "--no-install-project"), folder=placed.cwd
    )


def _pipenv(application: Application, placed: Placed) -> Inputs | NeedsSources:
    folder = application.folder(placed)
    text = application.context.read(posixpath.join(folder, "Pipfile")) if folder is not None else None
    if folder is None or text is None:
        return NeedsSources("pipenv runs where no readable Pipfile of the build context is")
    path = posixpath.join(folder, "Pipfile")
    if re.search(r"\b(path|file|editable)\s*=", text):
        return NeedsSources("Pipfile has a dependency in a folder of the sources", (application.line(path, "=", "names it"),))
    seen = application.facts.seen_in(path, "names packages, and no path of the sources")
    return Inputs("pipenv install", application.present(folder, ("Pipfile", "Pipfile.lock")), (seen,))


def _has_path(value: object) -> bool:
    """Whether a table of dependencies has one with a `path`."""
    if isinstance(value, dict):
        return any((key == "path" and isinstance(item, str)) or _has_path(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_path(item) for item in value)


def _runs(program: str, flag: str) -> Any:
    return lambda placed: placed.command.name == program and flag in placed.command.args
