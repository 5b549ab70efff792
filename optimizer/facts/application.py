"""What the application in an image really does: what it starts, writes and listens on.

From the entry point through the sources that it reaches.
Language-neutral; the readers of the languages are asked for each source file that the entry point reaches. What cannot be told
is listed in `unknown`: it is never taken for "no".
"""

from __future__ import annotations

import posixpath
import re
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import from_words, read_script
from optimizer.facts import go, go_sources, node_sources, python_sources
from optimizer.facts.commands import option_value
from optimizer.facts.manifests import Application
from optimizer.facts.node_packages import shipped_packages, tool_package
from optimizer.facts.packages import (
    base_programs,
    is_builder,
    python_package,
    python_package_of_import,
    python_package_of_program,
)
from optimizer.facts.started import How, Started, follow, follow_words
from optimizer.facts.state import expand
from optimizer.facts.uses import Act, Reading, Surroundings, Use
from optimizer.rewrite import Check, Evidence, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.commands import Placed
    from optimizer.facts.copies import Copy
    from optimizer.facts.facts import Facts
    from optimizer.facts.state import State

# Arguments that name a file for a log, a socket or a process id.
_WRITTEN = re.compile(r"(?:--?[\w-]+=)?(/(?:var/log|var/run|run|var/lib|data|logs?)/\S+)$")
# Programs of Debian packages that only ask others, or hand on.
_CLIENTS = frozenset("curl wget git tini dumb-init catatonit nc ncat ping jq pg_isready redis-cli mysqladmin openssl".split())
_PORT_OPTION = re.compile(r"(?:^|\s)(?:--port|--http-port|-p)[= ](\d{1,5})(?=\s|$)")
_ADDRESS = re.compile(r"^(?:[\w.\[\]]*|--?\w[\w-]*=?[\w.]*):(\d{1,5})$")
_SOURCE = re.compile(r"(?<!\.d)\.([cm]?[jt]sx?|py|go)$")
MAX_FILES, MAX_BYTES = 400, 4 << 20
# Packages that load modules of the application by names in settings: everything may be reached.
_LOADERS = re.compile(r"^(django|celery|airflow|scrapy|odoo|frappe|dagster)(\.|$)")
_NOT_SHIPPED = re.compile(
    r"(^|/)(tests?|__tests__|spec|docs?|examples?|node_modules|\.venv|migrations)/|[._](test|spec)\.\w+$|(^|/)(test_[^/]*|conftest|setup)\.py$"
)


class AppFacts:
    """The facts about the application that `stage` ships."""

    def __init__(self, facts: Facts, stage: Stage) -> None:
        self.facts = facts
        self.stage = stage
        self.last = stage.instructions[-1]
        self.application = Application(facts, self.last, including=True)

    # ---------------------------------------------------------------- what is started

    @cached_property
    def started(self) -> tuple[Started, ...]:
        """Everything that the image starts at run time: ENTRYPOINT, CMD, health checks, and what compose services say."""
        found: list[Started] = []
        for instruction in self._instructions():
            found += self._by_instruction(instruction)
        base = self.facts.image(self.stage)
        if base is not None and not any(i.keyword == "CMD" for i in self._instructions()):
            entry = any(i.keyword == "ENTRYPOINT" for i in self._instructions())
            if base.command and not entry:
                found += follow_words(self.application, base.command, self._workdir, self.facts.seen(self.stage.base, "starts"))
        found += self._by_services()
        return tuple(dict.fromkeys(found))

    def _instructions(self) -> tuple[Instruction, ...]:
        """The ENTRYPOINT, CMD and HEALTHCHECK in force, of this stage or of those that it builds on."""
        found = []
        for keyword in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
            for stage in self.stage.ancestry:
                if (last := stage.last(keyword)) is not None:
                    overridden = keyword == "CMD" and any(
                        s.last("ENTRYPOINT") is not None for s in self.stage.ancestry if s.index > stage.index
                    )
                    found += [] if overridden else [last]
                    break
        return tuple(found)

    def _by_instruction(self, instruction: Instruction) -> Iterator[Started]:
        facts = self.facts
        seen = facts.seen(instruction, "is started with the container")
        if instruction.keyword == "HEALTHCHECK":
            kind, *words = instruction.values or ("NONE",)
            if kind.upper() != "CMD" or not words:
                return
            seen = facts.seen(instruction, "is the health check")
            if len(words) == 1:
                yield from follow(self.application, read_script(words[0]), self._workdir, seen, by_shell=True)
            else:
                yield from follow_words(self.application, tuple(words), self._workdir, seen)
            return
        if instruction.keyword == "ENTRYPOINT" and instruction.exec_form and not _hands_on(instruction.exec_form):
            command = next((c for c in self._instructions() if c.keyword == "CMD" and c.exec_form), None)
            if command is not None:
                return  # CMD's words are its arguments: both are followed together
        if instruction.exec_form is not None:
            yield from follow_words(self.application, self._complete(instruction), self._workdir, seen)
            return
        yield from follow(self.application, facts.script(instruction), self._workdir, seen, by_shell=True)

    def _complete(self, instruction: Instruction) -> tuple[str, ...]:
        """The words of an exec form; those of CMD behind an ENTRYPOINT that is a program of its own are arguments to it."""
        words = instruction.exec_form or ()
        if instruction.keyword != "CMD":
            return words
        entry = next((e for s in self.stage.ancestry if (e := s.last("ENTRYPOINT")) is not None), None)
        if entry is None or not entry.exec_form:
            base = self.facts.image(self.stage)
            passes = entry is not None or base is None or base.entrypoint == "passes" or not base.start
            return words if passes else (*(base.start if base is not None else ()), *words)
        return words if _hands_on(entry.exec_form) else (*entry.exec_form, *words)

    def _by_services(self) -> Iterator[Started]:
        for service in self.facts.services:
            seen = Evidence(Location(self.facts.context.shown_path(service.file), 1), f"service {service.name} starts it")
            entry = next((e for s in self.stage.ancestry if (e := s.last("ENTRYPOINT")) is not None), None)
            takes_words = entry is not None and bool(entry.exec_form) and not _hands_on(entry.exec_form or ())
            for asked in (service.check, None if takes_words else service.command, service.entrypoint):
                words = asked
                if isinstance(words, tuple) and words[:1] in (("CMD",), ("NONE",)):
                    words = words[1:]
                elif isinstance(words, tuple) and words[:1] == ("CMD-SHELL",):
                    words = " ".join(words[1:])
                if isinstance(words, str):
                    script = read_script(words.replace("$$", "$"))
                    by_shell = asked is service.check
                    yield from follow(self.application, script, self._workdir, seen, by_shell=by_shell)
                elif words:
                    yield from follow_words(self.application, words, self._workdir, seen)

    @cached_property
    def _workdir(self) -> str | None:
        return self.facts.end_state(self.stage).workdir

    # ---------------------------------------------------------------- what its sources do

    @cached_property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """The source files that the entry points reach, each with its container path; all that the image has where an entry
        point, or what it loads, cannot be told."""
        return tuple((path, container) for path, (container, _) in self._reached.items())

    @cached_property
    def built_sources(self) -> tuple[str, ...]:
        """Source files that other stages build into what this one copies from them: they are not read like `sources`. None
        where everything that is started is at hand as it stands."""
        started = [s.what for s in self.started if s.how in (How.PYTHON, How.NODE)]
        if started and all(self.application.source(what) is not None for what in started):
            return ()
        files = (file for copy in self._copies_elsewhere for file in self.facts.files_of(copy) if _SOURCE.search(file))
        return tuple(dict.fromkeys(files))

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """What the lines of those files do, and of the Go files that a program of the image is compiled from."""
        return (*(use for _, reading in self._reached.values() for use in reading.uses), *self._go_uses)

    @cached_property
    def _go_uses(self) -> tuple[Use, ...]:
        workdir, variables = self._workdir, self.facts.end_state(self.stage).variables
        read = self.facts.context.read_bytes
        files = [(read(path) or b"", Surroundings(path, "/" + path, workdir, variables)) for path in self.compiled_sources]
        return tuple(use for reading in go_sources.read(files) for use in (*reading.uses, *reading.unknown))

    @cached_property
    def compiled_sources(self) -> tuple[str, ...]:
        """The paths below the context of the Go files that the stages compile."""
        found: dict[str, None] = {}
        for run, item in self._go_builds:
            application = Application(self.facts, run)
            project = go.module(application, item)
            everything = (f for copy in application.copies for f in self.facts.files_of(copy) if f.endswith(".go"))
            found |= dict.fromkeys(go.sources(application, project, item) if project is not None else everything)
        return tuple(found)

    @cached_property
    def _go_builds(self) -> tuple[tuple[Instruction, Placed], ...]:
        """The commands that compile Go programs, in the stages that are built."""
        return tuple(
            (run, item)
            for run in self.facts.runs
            for item in self.facts.placed(run) or ()
            if item.command.name == "go" and item.command.args[:1] in (("build",), ("install",))
        )

    @cached_property
    def is_explained(self) -> Check:
        """Whether the sources of everything that is started were at hand; programs of the base and of packages are known.

        An interpreter's name explains no script: one that is not found is something that was not read.
        """
        claim = "the sources of what is started are at hand: what it starts, writes and listens on is known"
        base = self.facts.image(self.stage)
        for started in self.started:
            if started.how in (How.PYTHON, How.NODE) and not self._is_at_hand(started):
                return Check(claim, holds=None, evidence=(started.seen,))
            name = posixpath.basename(started.what or "")
            if started.how is not How.PROGRAM or started.what is None:
                continue
            is_base = base is not None and (name in base.programs or (name in base_programs() and base.has_shell))
            known = is_base or name in _CLIENTS or python_package_of_program(name) is not None
            known = known or name in self.compiled or self._is_local(name)
            if not known or any(word.endswith((".jar", ".war")) for word in started.words):
                return Check(claim, holds=None, evidence=(started.seen,))
        return Check(claim, holds=True)

    def _is_at_hand(self, started: Started) -> bool:
        """Whether a source that is started was read: as it stands, or as what a build makes of sources that were."""
        if started.what is None:  # a server that finds its modules by itself: all were read
            return started.how is How.PYTHON and bool(self._everything)
        if self.source(started.what) is not None:
            return True
        return started.how is How.NODE and bool(self._everything) and self._is_built

    @cached_property
    def _is_built(self) -> bool:
        """Whether a RUN of a stage that is built runs a script of package.json, or a tool that builds."""
        commands = (c for run in self.facts.runs for c in self.facts.commands(run))
        return any(
            (c.name in ("npm", "yarn", "pnpm", "bun") and {"run", "run-script", "build", "compile"} & set(c.args[:2]))
            or is_builder(tool_package(c.name or ""))
            or (c.name in ("npx", "bunx") and any(is_builder(tool_package(arg)) for arg in c.args))
            for c in commands
        )

    @cached_property
    def compiled(self) -> dict[str, Evidence]:
        """The names under which the programs that `go build` makes may be started, each with the line that builds it."""
        found: dict[str, Evidence] = {}
        for run, item in self._go_builds:
            args = item.command.args
            project = go.module(Application(self.facts, run), item)
            module = re.search(r"^module\s+(\S+)", project.read("go.mod") or "", re.MULTILINE) if project is not None else None
            names = [posixpath.basename(value.rstrip("/")) for value in (option_value(args[1:], "-o"),) if value]
            names += [posixpath.basename(arg).removesuffix(".go") for arg in args[1:] if not arg.startswith("-")]
            names += [re.sub(r"/v\d+$", "", module[1]).rpartition("/")[2]] if module is not None else []
            seen = self.facts.seen_command(run, item.command, "compiles it")
            found |= dict.fromkeys((name for name in names if name not in ("", ".", "...")), seen)
        for copy in self.facts.up_to(self.last, "COPY"):  # under the name that it is copied to
            source = next((posixpath.basename(w.text) for w in copy.words[:-1] if posixpath.basename(w.text) in found), None)
            if copy.flag("from") is not None and source is not None and not copy.destination.endswith("/"):
                found.setdefault(posixpath.basename(copy.destination), found[source])
        return found

    def source(self, container: str | None) -> str | None:
        """The path below the context of the file at a container path, also where it came by way of another stage."""
        found = self.application.source(container)
        if found is not None or container is None:
            return found
        for copy in self.facts.up_to(self.last, "COPY"):
            flag = copy.flag("from")
            stage = self.facts.document.stage_named(flag.value or "") if flag is not None else None
            if stage is None or stage is self.stage:
                continue
            origin = Application(self.facts, stage.instructions[-1], including=True)
            for path in _places_of(container, copy, self.facts.state(copy), self.facts.end_state(stage)):
                if (found := origin.source(path)) is not None and self.facts.context.is_file(found):
                    return found
        return None

    def _is_local(self, name: str) -> bool:
        """Whether a program is one of node_modules, or of a global install by npm."""
        if name in ("npm", "npx", "yarn", "pnpm", "node", "python", "python3"):
            return True
        packages = shipped_packages(self.application, self._workdir)
        commands = (item.command for run in self.facts.runs for item in self.facts.placed(run) or ())
        named = {arg.partition("@")[0] for command in commands if "-g" in command.args for arg in command.args}
        return tool_package(name) in packages | named

    @cached_property
    def imports(self) -> frozenset[str]:
        """The modules that they import, as they name them."""
        return frozenset(name for _, reading in self._reached.values() for name in reading.imports)

    @cached_property
    def is_traced(self) -> bool:
        """Whether `sources` are what the entry points reach, and not simply all that there are."""
        return self._traced[1]

    @cached_property
    def is_read(self) -> bool:
        """Whether every source that can have a part in the application was read, and names all that it loads."""
        return not any(reading.unknown for _, reading in self._reached.values()) and len(self._reached) < MAX_FILES

    @cached_property
    def _reached(self) -> dict[str, tuple[str, Reading]]:
        return self._traced[0]

    @cached_property
    def _everything(self) -> dict[str, str]:
        """The source files of the image, and of stages that it copies from, that are neither tests nor of somebody else:
        path and container path."""
        found: dict[str, str] = {}
        for copy in (*self._copies_elsewhere, *self.application.copies):
            for file in self.facts.files_of(copy):
                if file.endswith((".py", *node_sources.ENDINGS)) and not _NOT_SHIPPED.search(file):
                    container = copy.container_path(file)
                    if container is not None:
                        found[file] = container
        return found

    @cached_property
    def _copies_elsewhere(self) -> tuple[Copy, ...]:
        """What the stages copy from the build context that this one copies from."""
        found: list[Copy] = []
        for copy in self.facts.up_to(self.last, "COPY"):
            flag = copy.flag("from")
            stage = self.facts.document.stage_named(flag.value or "") if flag is not None else None
            found += (c for s in stage.ancestry for c in self.facts.copies(s)) if stage is not None else ()
        return tuple(dict.fromkeys(found))

    @cached_property
    def _traced(self) -> tuple[dict[str, tuple[str, Reading]], bool]:
        entries = [s for s in self.started if s.how in (How.PYTHON, How.NODE)]
        is_certain = all(s.what is not None and self.source(s.what) is not None for s in entries)
        waiting = [(path, s.what) for s in entries if s.what and (path := self.source(s.what)) is not None]
        if not is_certain or (not entries and not self._go_builds):
            waiting, is_certain = list(self._everything.items()), False
        found: dict[str, tuple[str, Reading]] = {}
        budget = MAX_BYTES
        while waiting and len(found) < MAX_FILES and budget > 0:
            path, container = waiting.pop()
            if path in found or container is None:
                continue
            budget -= len(self.facts.context.read_bytes(path) or b"")
            reading = self._read(path, container)
            found[path] = (container, reading)
            if is_certain and (reading.unknown or any(_LOADERS.match(name) for name in reading.imports)):
                waiting, is_certain = [*waiting, *self._everything.items()], False
            waiting += list(self._imported(container, reading.imports))
        if waiting:
            is_certain = False
        return found, is_certain

    def _read(self, path: str, container: str) -> Reading:
        state = self.facts.end_state(self.stage)
        arguments = next((s.words for s in self.started if s.what == container and s.how is How.PYTHON), ())
        surroundings = Surroundings(path, container, state.workdir, state.variables, _behind(arguments, path))
        read: Callable[[bytes, Surroundings], Reading] = python_sources.read if path.endswith(".py") else node_sources.read
        key = (container, state.workdir, tuple(sorted(state.variables.items())), surroundings.arguments)
        return self.facts.context.reading(path, key, lambda data: read(data, surroundings))

    def _imported(self, container: str, imports: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The files of the application that are meant by the imports of a file."""
        here = posixpath.dirname(container)
        is_python = container.endswith(".py")
        for name in imports:
            for candidate in _python_files(name, here, self._workdir) if is_python else _node_files(name, here):
                source = self.source(candidate)
                if source is not None and self.facts.context.is_file(source):
                    yield source, candidate
                    if not is_python:
                        break

    # ---------------------------------------------------------------- answers

    @cached_property
    def programs(self) -> tuple[Started, ...]:
        """The programs that are started at run time, by the image itself or by a line of the application's sources."""
        found = [s for s in self.started if s.how is How.PROGRAM]
        found += [
            Started(How.PROGRAM, use.what, (use.what,), self.seen(use, f'starts "{use.what}"'))
            for use in self.uses
            if use.act is Act.STARTS and use.what is not None
        ]
        return tuple(found)

    @cached_property
    def shells(self) -> tuple[Evidence, ...]:
        """The lines that need a shell in the image."""
        found = [s.seen for s in self.started if s.how is How.SHELL]
        return (*found, *(self.seen(u, "runs a command through a shell") for u in self.uses if u.act is Act.SHELL))

    @cached_property
    def writes(self) -> tuple[tuple[str | None, Evidence], ...]:
        """The container paths that the application writes at run time; None for a path that is not known before."""
        found = [(u.what, self.seen(u, "writes there")) for u in self.uses if u.act is Act.WRITES]
        for started in self.started:
            if started.how is How.WRITES:
                found.append((started.what, started.seen))
            matches = (_WRITTEN.match(word) for word in started.words[1:]) if started.how is How.PROGRAM else ()
            found += [(match[1], started.seen) for match in matches if match is not None]
        return (*found, *self._package_writes())

    def _package_writes(self) -> Iterator[tuple[str | None, Evidence]]:
        """What the Python packages write by themselves that are imported or started."""
        for path, (_, reading) in self._reached.items() if any(s.how is How.PYTHON for s in self.started) else ():
            for name in dict.fromkeys(imported.partition(".")[0] for imported in reading.imports):
                seen = self.facts.seen_in(path, f"imports {name}, which writes there")
                yield from ((where, seen) for where in self._places(python_package_of_import(name)))
        for started in self.started:
            package = python_package_of_program(started.what or "") if started.how is How.PROGRAM else None
            if package is not None:
                yield from ((where, started.seen) for where in self._places(package))

    def _places(self, package: str) -> Iterator[str | None]:
        found = python_package(package)
        for place in found.writes if found is not None else ():
            if place.startswith("working directory"):
                yield self._workdir
            elif place.startswith(("~", "/")):
                yield place

    @cached_property
    def ports(self) -> tuple[tuple[int, Evidence], ...]:
        """The ports that the application listens on, by its sources, its arguments and EXPOSE."""
        found = [(int(u.what), self.seen(u, f"listens on port {u.what}")) for u in self.uses if u.act is Act.LISTENS and u.what]
        for started in self.started:
            words = (expand(word, self.facts.end_state(self.stage).variables) or word for word in started.words)
            line = " ".join(words)
            found += [(int(port), started.seen) for port in _PORT_OPTION.findall(line)]
            matches = (_ADDRESS.search(word) for word in line.split())
            found += [(int(match[1]), started.seen) for match in matches if match is not None]
        for instruction in self.facts.up_to(self.last, "EXPOSE"):
            for exposed in instruction.words:
                port = self.facts.state(instruction).expanded(exposed.text)
                if port and (match := re.match(r"(\d+)", port)):
                    found.append((int(match[1]), self.facts.seen(instruction, f"exposes port {match[1]}")))
        return tuple(found)

    @cached_property
    def unknown(self) -> tuple[Check, ...]:
        """What of the programs that are started cannot be told, each as a check that neither holds nor fails."""
        checks = [
            Check("everything that the container starts can be told", holds=None, evidence=(s.seen,))
            for s in self.started
            if s.how is How.UNKNOWN
        ]
        computed = [u for u in self.uses if u.act is Act.STARTS and u.what is None]
        computed += [u for _, reading in self._reached.values() for u in reading.unknown]
        claim = "which program is started, or which module loaded, is known before it runs"
        checks += [Check(claim, holds=None, evidence=(self.seen(use, "is only known when it runs"),)) for use in computed[:3]]
        if not self.facts.context.is_known:
            checks.append(Check("the application's sources are known", holds=None))
        return tuple(checks)

    def seen(self, use: Use, claim: str) -> Evidence:
        """A line of the application's source, and what it says."""
        return self.facts.seen_in(use.path, claim, line=use.line, excerpt=use.excerpt)


def started_by(facts: Facts, run: Instruction) -> tuple[Started, ...]:
    """Everything that a RUN starts, through scripts of the build context and of package.json."""
    application = Application(facts, run)
    commands = facts.placed(run)
    if commands is None:
        return (Started(How.UNKNOWN, None, (), facts.seen(run, "cannot be read as a shell script")),)
    found: list[Started] = []
    for item in commands:
        script = (
            from_words((item.command.words[item.command.head].text or "", *item.command.args)) if item.command.words else None
        )
        seen = facts.seen_command(run, item.command, "runs in the build")
        if item.command.name is None:
            found.append(Started(How.UNKNOWN, None, (), seen))
        elif script is not None and item.command.name:
            found += follow(application, script, item.cwd, seen, by_shell=False)
    return tuple(found)


def _behind(words: tuple[str, ...], path: str) -> tuple[str, ...]:
    """The arguments of a program: the words from its own file on."""
    name = posixpath.basename(path)
    return next((words[i:] for i, word in enumerate(words) if posixpath.basename(word) == name), ())


def _places_of(container: str, copy: Instruction, state: State, origin: State) -> Iterator[str]:
    """Where in another stage the file lies that a COPY out of it puts at `container`."""
    destination = state.path(copy.destination)
    for word in copy.words[:-1]:
        source = origin.path(word.text)
        if source is None or destination is None:
            continue
        if container == destination:
            yield source
        elif container.startswith(destination.rstrip("/") + "/"):
            rest = container[len(destination.rstrip("/")) + 1 :]
            yield posixpath.join(source, rest)
            if posixpath.basename(source) == rest:
                yield source


def _hands_on(entrypoint: tuple[str, ...]) -> bool:
    """Whether an ENTRYPOINT starts what CMD says, as a script or an init program does; others get it as arguments."""
    name = entrypoint[0].rpartition("/")[2]
    is_script = re.search(r"\.sh$|entrypoint", name) is not None
    return is_script or (name in ("tini", "dumb-init", "catatonit", "gosu", "su-exec") and len(entrypoint) < 4)


def _python_files(name: str, here: str, workdir: str | None) -> Iterator[str]:
    """Where the module `name` could lie, imported from a file in `here`."""
    if name.startswith("."):
        dots = len(name) - len(name.lstrip("."))
        folder = here
        for _ in range(dots - 1):
            folder = posixpath.dirname(folder)
        roots = [folder]
    else:
        roots = [here] + ([workdir] if workdir and workdir != here else [])
        above = posixpath.dirname(here)
        roots += [above] if above != workdir else []
    parts = [part for part in name.lstrip(".").split(".") if part]
    for root in roots:
        for end in range(1, len(parts) + 1):
            base = posixpath.join(root, *parts[:end])
            yield f"{base}.py"
            yield posixpath.join(base, "__init__.py")


def _node_files(name: str, here: str) -> Iterator[str]:
    """Where the module `name` could lie, loaded by a file in `here`; packages of node_modules are not followed."""
    if not name.startswith((".", "/")):
        return
    base = posixpath.normpath(posixpath.join(here, name))
    yield base
    stem = re.sub(r"\.(m|c)?js$", "", base)
    for ending in node_sources.ENDINGS:
        yield base + ending
        yield stem + ending
    for ending in node_sources.ENDINGS:
        yield posixpath.join(base, f"index{ending}")
