"""Which program a Go image starts, the command that builds it, and how it is linked."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import dequote
from optimizer.facts import go, go_sources
from optimizer.facts.commands import option_value
from optimizer.facts.manifests import Application
from optimizer.facts.packages import needs_cgo
from optimizer.facts.places import PROGRAMS
from optimizer.split.frame import Obstacle

if TYPE_CHECKING:
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Project
    from optimizer.rewrite import Evidence
    from optimizer.split.frame import Strategy

_BUILDERS_OWN = frozenset("go gofmt sh bash air reflex CompileDaemon dlv make".split())
_LINKING = re.compile(r"-linkmode|^-buildmode|^-race$|^-msan$|^-asan$|-extldflags")


@dataclass(frozen=True, slots=True)
class Program:
    """The program: its container path, the RUN and the command that build it, and the module."""

    path: str
    run: Instruction
    build: Placed
    project: Project


def program(stage: Strategy) -> Program | Obstacle:
    """The program that the image starts and that one RUN of `stage` builds."""
    name = _started(stage)
    if isinstance(name, Obstacle):
        return name
    builds: list[tuple[Instruction, Placed]] = [
        (run, placed)
        for run, placed in stage.commands()
        if placed.command.name == "go"
        and placed.command.args[:1] in (("build",), ("install",))
        and not any("@" in arg for arg in placed.command.args)
    ]
    found: list[Program] = []
    for run, placed in builds:
        project = go.module(Application(stage.facts, run), placed)
        if project is None:
            seen = stage.facts.seen_command(run, placed.command, "builds")
            return Obstacle("no go.mod of the build context is where it is built", (seen,))
        paths = _outputs(stage, placed, project)
        path = (
            name
            if name in paths
            else next((p for p in paths if posixpath.dirname(p) in PROGRAMS and p.endswith(f"/{name}")), None)
        )
        if path is not None:
            found.append(Program(path, run, placed, project))
    if not found:
        return _not_built(stage, builds)
    return _certain(stage, found, builds)


def _certain(stage: Strategy, found: list[Program], builds: list[tuple[Instruction, Placed]]) -> Program | Obstacle:
    """The one program, if it is built in one way, by a RUN that can be edited, and nothing else is built beside it."""
    program = found[0]
    seen = stage.facts.seen_command(program.run, program.build.command, "builds it")
    if len(found) > 1 or not program.build.command.is_unconditional:
        return Obstacle("the program is built in more ways than one", (seen,))
    if not stage.facts.is_editable(program.run):
        return Obstacle("the RUN that builds it is not a script that can be changed", (seen,))
    other = next(((r, p) for r, p in builds if p is not program.build and not _is_check(p)), None)
    if other is not None:
        also = stage.facts.seen_command(other[0], other[1].command, "builds something else")
        return Obstacle("another program is built beside the one that is started", (also,))
    return program


def _is_check(placed: Placed) -> bool:
    """Whether a build only checks that everything compiles."""
    return placed.command.args[0] == "build" and "-o" not in placed.command.args and placed.command.args[-1].endswith("...")


def _not_built(stage: Strategy, builds: list[tuple[Instruction, Placed]]) -> Obstacle:
    if builds:
        run, placed = builds[0]
        seen = stage.facts.seen_command(run, placed.command, "builds something")
        return Obstacle("no RUN is known to build the program that the image starts", (seen,))
    other = next(((r, p) for r, p in stage.commands() if p.command.name in ("make", "mage", "task", "just")), None)
    if other is not None:
        seen = stage.facts.seen_command(other[0], other[1].command, "builds")
        return Obstacle(f"what `{other[1].command.name}` builds, and how, is not read", (seen,))
    return Obstacle("nothing is built with go in the image", (stage.facts.seen(stage.stage.base, "is the base"),))


def _started(stage: Strategy) -> str | Obstacle:
    """The container path, or the name on PATH, of what the image starts."""
    for keyword in ("ENTRYPOINT", "CMD"):
        instruction = stage.stage.last(keyword)
        words = instruction.exec_form if instruction is not None else ()
        if instruction is None or words == ():
            continue
        here = stage.facts.seen(instruction, "starts the program")
        if words is None:
            return Obstacle("it is started through a shell, which the runtime image does not have", (here,))
        name = words[0]
        if name.rpartition("/")[2] in _BUILDERS_OWN:
            return Obstacle(f"the container runs `{name}`: it needs the tools of the builder", (here,))
        if name.rpartition("/")[2] in ("tini", "dumb-init") or name.endswith(".sh"):
            return Obstacle(f"`{name}` starts the program, and the runtime image does not have it", (here,))
        if name.startswith("/"):
            return posixpath.normpath(name)
        if "/" not in name:
            return name
        if stage.workdir is None:
            return Obstacle("where the program lies is not known", (here,))
        return posixpath.normpath(posixpath.join(stage.workdir, name))
    return Obstacle("the image starts nothing of its own", is_silent=True)


def _outputs(stage: Strategy, placed: Placed, project: Project) -> tuple[str, ...]:
    """Where a build may put its program."""
    args = placed.command.args
    names = sorted(_names(placed, project))
    if args[0] == "install":
        variables = stage.application.variables
        folder = variables.get("GOBIN") or posixpath.join(variables.get("GOPATH") or "/go", "bin")
        return tuple(posixpath.join(folder, name) for name in names)
    out = option_value(args[1:], "-o")
    if out is None:
        return tuple(path for name in names if (path := placed.path(name)) is not None)
    path = placed.path(out.removeprefix("="))
    if path is None:
        return ()
    return tuple(posixpath.join(path, name) for name in names) if out.endswith("/") else (path,)


def _names(placed: Placed, project: Project) -> set[str]:
    """The name that a program gets which is built without one: the last part of its package's path."""
    module = re.search(r"^module\s+(\S+)", project.read("go.mod") or "", re.MULTILINE)
    targets = [a for a in placed.command.args[1:] if a.startswith("./") or a == "."]
    found = {posixpath.basename(posixpath.normpath(t)) for t in targets if posixpath.normpath(t) not in (".", "...")}
    if not found and module is not None:
        found = {re.sub(r"/v\d+$", "", module[1]).rpartition("/")[2]}
    files = [a for a in placed.command.args[1:] if a.endswith(".go")]
    return {posixpath.basename(files[0]).removesuffix(".go")} if files else found


# -------------------------------------------------------------------- how it is linked


@dataclass(frozen=True, slots=True)
class Linking:
    """How the program is linked: statically, against the C library, or None where that is not known; why, and the line.

    `sets_cgo`: CGO_ENABLED=0 has to be said for it to be static.
    """

    is_static: bool | None
    why: str
    seen: tuple[Evidence, ...]
    sets_cgo: bool = False


def linking(stage: Strategy, program: Program) -> Linking | Obstacle:
    """How `program` is linked."""
    here = stage.facts.seen_command(program.run, program.build.command, "builds it")
    if any(_LINKING.search(arg) for arg in program.build.command.args):
        return Obstacle("a flag of the build decides how the program is linked", (here,))
    told = next((p for _, p in stage.commands() if "CGO_ENABLED" in str(p.command) and p != program.build), None)
    if told is not None:
        return Obstacle("another command sets CGO_ENABLED", (here,))
    setting = _setting(stage, program)
    if setting == "0":
        return Linking(is_static=True, why="CGO_ENABLED=0: the program is linked statically", seen=(here,))
    needs, why, seen = _needs(stage, program)
    if setting not in (None, "1"):
        return Obstacle("CGO_ENABLED is only known when it is built", (here,))
    if setting == "1" or needs is not False:
        return Linking(is_static=False if needs else None, why="CGO_ENABLED=1 asks for cgo" if setting else why, seen=seen)
    return Linking(is_static=True, why=why, seen=seen, sets_cgo=True)


def _setting(stage: Strategy, program: Program) -> str | None:
    """What CGO_ENABLED is set to for the build; "?" where that is not known, None where it is not set."""
    for word in program.build.command.sets:
        name, _, value = word.partition("=")
        if name == "CGO_ENABLED":
            return dequote(value)[0] or "?"
    variables = stage.facts.state(program.run).variables
    return variables["CGO_ENABLED"] or "?" if "CGO_ENABLED" in variables else None


def _needs(stage: Strategy, program: Program) -> tuple[bool | None, str, tuple[Evidence, ...]]:
    """Whether the program needs cgo; why; and the line. None where a module is not known."""
    line = stage.application.line
    for path in go.sources(stage.application, program.project, program.build):
        if go_sources.imports_cgo(stage.facts.context.read_bytes(path) or b""):
            return True, f'{path} imports "C"', (line(path, '"C"', "is compiled with cgo"),)
    mod = program.project.source("go.mod")
    verdicts = {module: needs_cgo(module) for module in go.modules(program.project)}
    if needy := next((module for module, verdict in verdicts.items() if verdict), None):
        return True, f"{needy} needs cgo", (line(mod, needy, "needs cgo"),)
    if unknown := next((module for module, verdict in verdicts.items() if verdict is None), None):
        return None, f"whether {unknown} needs cgo is not known", (line(mod, unknown, "is not in our table"),)
    seen = stage.facts.seen_in(mod, "names the modules, none with cgo")
    return False, "no module and no file of its own needs cgo", (seen,)
