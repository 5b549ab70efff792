"""Go: go.mod and go.sum, and what `go mod download` and `go build` read of them."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean
from optimizer.facts.commands import Placed
from optimizer.facts.manifests import Inputs, NeedsSources, upwards
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.manifests import Application, ManifestFile, Project

_BUILDS = frozenset({"build", "install", "test", "run", "vet", "get", "generate", "list"})
# Variables that change what is built, and not what is downloaded.
_BUILD_ONLY = frozenset(
    "CGO_ENABLED GOOS GOARCH GOARM GOAMD64 GOEXPERIMENT GOTRACEBACK GODEBUG CC CXX CGO_CFLAGS CGO_LDFLAGS".split()
)
_REQUIREMENT = re.compile(r"^\s*(?:require\s+)?([\w.\-~]+(?:\.[\w\-~]+)+(?:/[^\s()]+)*)\s+v\d\S*[^\n]*$", re.MULTILINE)
_BUILT = re.compile(r"(?<!_test)\.go$")
_REPLACE = re.compile(r"^\s*(?:replace\s+)?\S+(?:\s+v\S+)?\s*=>\s*(?P<target>\.{1,2}(?:/\S*)?|/\S+)\s*(?://.*)?$", re.MULTILINE)


def installs_by_name(command: Command) -> bool:
    """Whether a command is a `go install` of modules with their versions."""
    plain = [arg for arg in command.args if not arg.startswith("-")]
    return command.name == "go" and plain[:1] == ["install"] and all("@" in name for name in plain[1:])


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What `go mod download` reads; for a build, what a `go mod download` before it would read. None for other commands."""
    command = placed.command
    if command.name != "go" or not command.args:
        return None
    is_download = command.args[:2] == ("mod", "download")
    if not is_download and command.args[0] not in _BUILDS:
        return None
    project = module(application, placed)
    if project is None:
        return None
    files = _manifests(application, project)
    if isinstance(files, NeedsSources):
        return files
    if not files:
        return None
    seen = application.line(project.source("go.mod"), "require", "names the modules")
    if is_download:
        return Inputs("go mod download", files, (seen,))
    if foreign := next((word for word in command.sets if word.partition("=")[0] not in _BUILD_ONLY), None):
        return NeedsSources(f"{foreign.partition('=')[0]} is set for this command alone, and a download may need it")
    settings = " ".join(
        f"{name}={application.variables.get(name)}" for name in ("GOFLAGS", "GOPROXY") if name in application.variables
    )
    if re.search(r"-mod|file:|=off|=None", " ".join((*command.args, settings))):
        return NeedsSources("the build says itself where its modules come from (-mod or GOFLAGS)")
    checks = (_uses_all(application, project, placed),)
    return Inputs(
        "go mod download", files, (seen,), checks, prefetch="go mod download", done_by=_is_download, folder=project.container
    )


def _is_download(placed: Placed) -> bool:
    return placed.command.name == "go" and placed.command.args[:2] == ("mod", "download")


def module(application: Application, placed: Placed) -> Project | None:
    """The module whose go.mod is in force: the nearest one, from the folder of the command upwards."""
    folders = upwards(placed.cwd) if placed.cwd else ()
    found = (application.project(Placed(placed.command, folder), "go.mod") for folder in folders)
    return next((project for project in found if project is not None), None)


def modules(project: Project) -> tuple[str, ...]:
    """The modules that go.mod requires, indirect ones too."""
    return tuple(dict.fromkeys(match[1] for match in _REQUIREMENT.finditer(project.read("go.mod") or "")))


def sources(application: Application, project: Project, placed: Placed) -> tuple[str, ...]:
    """The Go files, as paths below the context, of the packages of the module that a build compiles, and of the modules that it
    replaces by folders."""
    found = _reach(application, project, placed)[1]
    for match in _REPLACE.finditer(project.read("go.mod") or ""):
        folder = clean(posixpath.join(project.folder, match["target"]))
        found += [f for f in application.context.walk(folder) if _BUILT.search(f)] if not folder.startswith("..") else []
    return tuple(dict.fromkeys(found))


def _manifests(application: Application, project: Project) -> tuple[ManifestFile, ...] | NeedsSources:
    """go.mod, go.sum and those of local replacements; empty where there is nothing to download."""
    path = project.source("go.mod")
    text = project.read("go.mod") or ""
    for folder in upwards(project.container):
        work = application.source(posixpath.join(folder, "go.work"))
        if work is not None:
            return NeedsSources("a go.work joins several modules", (application.facts.seen_in(work, "joins them"),))
    if project.has("vendor"):
        return NeedsSources("the modules are vendored: nothing is downloaded")
    if not re.search(r"^\s*(require\s|\t\S+\.\S+ v)", text, re.MULTILINE):
        return ()
    if not project.has("go.sum"):
        return NeedsSources("there is no go.sum beside go.mod", (application.facts.seen_in(path, "requires modules"),))
    files = [*project.files("go.mod", "go.sum")]
    for match in _REPLACE.finditer(text):
        target = match["target"]
        seen = application.line(path, target, "replaces a module by a folder")
        inside = posixpath.normpath(posixpath.join(project.folder, target))
        if target.startswith("/") or inside.startswith("..") or not project.has(posixpath.join(target, "go.mod")):
            return NeedsSources(f"go.mod replaces a module by {target}, which is not in the build context", (seen,))
        files += project.files(posixpath.join(target, "go.mod"), posixpath.join(target, "go.sum"))
    return tuple(dict.fromkeys(files))


def _uses_all(application: Application, project: Project, placed: Placed) -> Check:
    """Whether what is built imports every module that go.mod requires: `go mod download` gets those of tests and tools too."""
    text = project.read("go.mod") or ""
    replaced = {m[1] for m in re.finditer(r"^\s*(?:replace\s+)?(\S+)(?:\s+v\S+)?\s*=>\s*\.{1,2}/", text, re.MULTILINE)}
    wanted = {m[1] for m in _REQUIREMENT.finditer(text) if "// indirect" not in m[0]} - replaced
    imported = _imports(application, project, placed)
    unused = {module for module in wanted if not any(i == module or i.startswith(f"{module}/") for i in imported)}
    claim = (
        f"the modules that only tests or tools use can be downloaded where the image is built: {', '.join(sorted(unused)[:3])}"
    )
    return Check(claim if unused else "the program imports every module that go.mod requires", holds=None if unused else True)


def _imports(application: Application, project: Project, placed: Placed) -> set[str]:
    """The packages that the packages named on a build's command line import, through the module's own packages."""
    return _reach(application, project, placed)[0]


def _reach(application: Application, project: Project, placed: Placed) -> tuple[set[str], list[str]]:
    """What a build imports, through the module's own packages, and the files of those."""
    match = re.search(r"^module\s+(\S+)", project.read("go.mod") or "", re.MULTILINE)
    name = match[1] if match else ""
    here = posixpath.relpath(placed.cwd or project.container, project.container)
    args = placed.command.args[1:]
    targets = [arg for arg in args if arg == "." or arg.startswith("./")]
    targets += [posixpath.dirname(arg) or "." for arg in args if arg.endswith(".go") and not arg.startswith("./")]
    waiting = {clean(posixpath.join(here, _package(target))) for target in targets or ["."]}
    everything = any(target.endswith("/...") for target in targets)
    seen: set[str] = set()
    found: set[str] = set()
    files: list[str] = []
    while waiting:
        folder = waiting.pop()
        seen.add(folder)
        base = clean(posixpath.join(project.folder, folder))
        for path in application.context.walk(base):
            if not _BUILT.search(path) or (not everything and posixpath.dirname(path) != base):
                continue
            files.append(path)
            for package in _imports_of(application.context.read(path) or ""):
                found.add(package)
                own = package[len(name) :].strip("/")
                if package.startswith(f"{name}/") and own not in seen:
                    waiting.add(own)
    return found, files


def _package(target: str) -> str:
    """The folder of a target of `go build`: `./cmd/x`, `./...` or a file."""
    bare = target.removesuffix("/...")
    return posixpath.dirname(bare) or "." if bare.endswith(".go") else bare


def _imports_of(text: str) -> list[str]:
    """The import paths of a Go file; none of one that a build tag leaves out of ordinary builds."""
    if re.search(r"^//go:build\s+.*\b(tools|ignore)\b", text, re.MULTILINE):
        return []
    blocks = re.findall(r"^import\s*\((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    single = re.findall(r"^import\s+(?:[\w.]+\s+)?\"([^\"]+)\"", text, re.MULTILINE)
    return single + [path for block in blocks for path in re.findall(r"\"([^\"]+)\"", block)]
