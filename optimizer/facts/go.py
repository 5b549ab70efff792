"""Go: go.mod and go.sum, and what `go mod download` and `go build` read of them."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.facts.manifests import Inputs, NeedsSources

if TYPE_CHECKING:
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application

_BUILDS = frozenset({"build", "install", "test", "run", "vet", "get", "generate", "list"})
_REPLACE = re.compile(r"^\s*(?:replace\s+)?\S+(?:\s+v\S+)?\s*=>\s*(?P<target>\.{1,2}(?:/\S*)?|/\S+)\s*(?://.*)?$", re.MULTILINE)


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What `go mod download` reads; for a build, what a `go mod download` before it would read. None for other commands."""
    command = placed.command
    if command.name != "go" or not command.args:
        return None
    is_download = command.args[:2] == ("mod", "download")
    if not is_download and command.args[0] not in _BUILDS:
        return None
    module = _module(application, placed)
    if module is None:
        return None
    folder, container = module
    files = _manifests(application, folder)
    if isinstance(files, NeedsSources) or not files:
        return files or None
    seen = application.line(posixpath.join(folder, "go.mod"), "require", "names the modules")
    if is_download:
        return Inputs("go mod download", files, (seen,))
    if any(arg.startswith("-mod=") for arg in command.args) or any("GOFLAGS" in word for word in command.sets):
        return NeedsSources("the build says itself where its modules come from (-mod or GOFLAGS)")
    return Inputs("go mod download", files, (seen,), prefetch="go mod download", done_by=_is_download, folder=container)


def _is_download(placed: Placed) -> bool:
    return placed.command.name == "go" and placed.command.args[:2] == ("mod", "download")


def _module(application: Application, placed: Placed) -> tuple[str, str] | None:
    """The folder of the context with the go.mod in force, and its container path."""
    container = placed.cwd
    while container:
        folder = application.source(container)
        if folder is not None and application.context.is_file(posixpath.join(folder, "go.mod")):
            return folder, container
        if container == "/":
            return None
        container = posixpath.dirname(container)
    return None


def _manifests(application: Application, folder: str) -> tuple[str, ...] | NeedsSources:
    """go.mod, go.sum and those of local replacements; empty where there is nothing to download."""
    path = posixpath.join(folder, "go.mod")
    text = application.context.read(path) or ""
    above = folder
    while True:
        if found := application.present(above, ("go.work",)):
            return NeedsSources("a go.work joins several modules", (application.facts.seen_in(found[0], "joins them"),))
        if not above:
            break
        above = posixpath.dirname(above)
    if application.present(folder, ("vendor",)):
        return NeedsSources("the modules are vendored: nothing is downloaded")
    if not re.search(r"^\s*(require\s|\t\S+\.\S+ v)", text, re.MULTILINE):
        return ()
    if not application.present(folder, ("go.sum",)):
        return NeedsSources("there is no go.sum beside go.mod", (application.facts.seen_in(path, "requires modules"),))
    files = [path, posixpath.join(folder, "go.sum")]
    for match in _REPLACE.finditer(text):
        found_at = _replacement(application, folder, match["target"])
        seen = application.line(path, match["target"], "replaces a module by a folder")
        if found_at is None:
            return NeedsSources(f"go.mod replaces a module by {match['target']}, which is not in the build context", (seen,))
        files += application.present(found_at, ("go.mod", "go.sum"))
    return tuple(dict.fromkeys(files))


def _replacement(application: Application, folder: str, target: str) -> str | None:
    path = posixpath.normpath(posixpath.join("/", folder, target))
    inside = posixpath.normpath(posixpath.join(folder, target))
    if target.startswith("/") or inside.startswith(".."):
        return None
    found = path.lstrip("/")
    return found if application.context.is_file(posixpath.join(found, "go.mod")) else None

