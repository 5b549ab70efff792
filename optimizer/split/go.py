"""Go: compile in the builder; ship the binary, and the files that it reads, on a base without a distribution."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Edit, Span
from optimizer.dockerfile.patterns import clean
from optimizer.facts import go, go_sources
from optimizer.facts.commands import option_value
from optimizer.facts.manifests import Application
from optimizer.facts.packages import go_programs, is_build_only, needs_cgo, package_of, runtime_libraries
from optimizer.facts.started import How
from optimizer.facts.uses import ANYTHING, Act, Surroundings, Use, folder
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Change, Check, Safety
from optimizer.split.frame import Line, Obstacle, Plan, Strategy, default_fates, from_context, from_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.copies import Copy
    from optimizer.facts.manifests import Project
    from optimizer.rewrite import Evidence

BASES = frozenset({"golang"})
BEST = Safety.SAFE
UNPROVEN: tuple[str, ...] = ()
STATIC, DYNAMIC = "gcr.io/distroless/static", "gcr.io/distroless/base"
# Variables that only the go command reads.
_BUILD_ONLY = frozenset(
    """CGO_ENABLED GOOS GOARCH GOARM GOAMD64 GOFLAGS GOPROXY GOPRIVATE GONOSUMDB GONOSUMCHECK GOSUMDB GONOPROXY GO111MODULE
    GOPATH
    GOCACHE GOMODCACHE GOTOOLCHAIN GOEXPERIMENT CGO_CFLAGS CGO_LDFLAGS DEBIAN_FRONTEND""".split()
)
_BUILDS = frozenset(
    {"mod", "build", "install", "vet", "test", "get", "generate", "env", "version", "fmt", "list", "clean", "work"}
)
_NO_SHELL = "the image has no shell: docker exec finds none to start; images with the tag debug have one"
_HARMLESS = frozenset("cd ls echo set pwd true : mkdir chmod strip upx env export printf cat which test [".split())
# What every image of a distribution has, and the distroless ones too, or what the kernel gives.
_SYSTEM = re.compile(
    r"^/(proc|sys|dev|tmp|run|var/run)(/|$)|^/etc/(ssl|hosts|resolv\.conf|hostname|passwd|group|localtime|mime\.types)|^/usr/share/zoneinfo"
)
_DOCUMENTS = re.compile(
    r"(^|/)(Dockerfile[^/]*|[^/]*\.Dockerfile|\.dockerignore|\.git[^/]*|README[^/]*|LICENSE[^/]*|Makefile|CHANGELOG[^/]*|go\.(mod|sum|work)"
    r"|[^/]*\.go|[^/]*\.md|(docker-)?compose[^/]*\.ya?ml|\.golangci[^/]*|\.github|\.idea|\.vscode)$",
    re.IGNORECASE,
)


def plan(document: Document, facts: Facts, stage: Stage) -> Plan | Obstacle:
    """How to split a stage that builds and starts a Go program."""
    return _Go(document, facts, stage).plan()


class _Go(Strategy):
    def plan(self) -> Plan | Obstacle:
        binary = self._binary()
        if isinstance(binary, Obstacle):
            return binary
        built = self._built(binary)
        if isinstance(built, Obstacle):
            return built
        run, build, project, binary = built
        if (odd := self._odd_run()) is not None:
            return odd
        uses = tuple(self._uses(project, build))
        programs = self._programs(uses, project)
        if isinstance(programs, Obstacle):
            return programs
        return self._assemble(binary, run, build, project, uses, programs)

    # ---------------------------------------------------------------- the binary

    def _binary(self) -> str | Obstacle:
        """The container path of the program that the image starts."""
        for keyword in ("ENTRYPOINT", "CMD"):
            instruction = self.stage.last(keyword)
            if instruction is None:
                continue
            here = self.facts.seen(instruction, "starts the program")
            words = instruction.exec_form
            if words is None:
                return Obstacle("it is started through a shell, which the runtime image does not have", (here,))
            if not words:
                continue
            name = words[0]
            if name == "go" or name.rpartition("/")[2] in ("sh", "bash", "air", "reflex", "CompileDaemon"):
                return Obstacle(f"the container runs `{name}`: it needs the tools of the builder", (here,))
            path = _program_path(name, self.workdir)
            return path if path is not None else Obstacle("where the program lies is not known", (here,))
        return Obstacle("the image starts nothing of its own", is_silent=True)

    def _built(self, binary: str) -> tuple[Instruction, Placed, Project, str] | Obstacle:
        """The RUN and the command that build `binary`, the module that it is built from, and where it lies."""
        seen: list[Evidence] = []
        for run, placed in self.commands():
            if placed.command.name == "go" and placed.command.args[:1] in (("build",), ("install",)):
                seen.append(self.facts.seen_command(run, placed.command, "builds"))
                project = go.module(Application(self.facts, run), placed)
                if project is None:
                    return Obstacle("no go.mod of the build context is where it is built", (seen[-1],))
                outputs = self._outputs(placed, project)
                if binary in outputs:
                    paths = [p for p in outputs if p.startswith("/") and posixpath.basename(p) == binary]
                    if "/" in binary or paths:
                        return run, placed, project, binary if "/" in binary else paths[0]
        reason = (
            "no RUN is known to build the program that the image starts" if seen else "nothing is built with go in the image"
        )
        return Obstacle(reason, tuple(seen[:1]) or (self.facts.seen(self.stage.base, "is the base"),))

    def _outputs(self, placed: Placed, project: Project) -> set[str]:
        """Where a build may put its program."""
        args = placed.command.args
        names = self._names(placed, project)
        if args[0] == "install":
            folder_ = self.application.variables.get("GOBIN") or posixpath.join(
                self.application.variables.get("GOPATH") or "/go", "bin"
            )
            return {posixpath.join(folder_, name) for name in names} | names  # by name: it is on PATH
        out = option_value(args[1:], "-o")
        if out is None:
            return {path for name in names if (path := placed.path(name)) is not None}
        path = placed.path(out)
        if path is None:
            return set()
        on_path = (
            {posixpath.basename(path)}
            if posixpath.dirname(path) in ("/usr/local/bin", "/usr/bin", "/bin", "/go/bin")
            else set()
        )
        return {path, *(posixpath.join(path, name) for name in names), *on_path}

    def _names(self, placed: Placed, project: Project) -> set[str]:
        """The name that a program gets which is built without one: the last part of its package's path."""
        module = re.search(r"^module\s+(\S+)", project.read("go.mod") or "", re.MULTILINE)
        targets = [a for a in placed.command.args[1:] if a.startswith("./") or a == "."]
        found = {posixpath.basename(posixpath.normpath(t)) for t in targets if posixpath.normpath(t) not in (".", "...")}
        if not found and module is not None:
            found = {re.sub(r"/v\d+$", "", module[1]).rpartition("/")[2]}
        files = [a for a in placed.command.args[1:] if a.endswith(".go")]
        return {posixpath.basename(files[0]).removesuffix(".go")} if files else found

    # ---------------------------------------------------------------- what else the stage does

    def _odd_run(self) -> Obstacle | None:
        """A RUN that does something for the running image that cannot be carried over."""
        for run in self.runs:
            for placed in self.facts.placed(run) or ():
                command = placed.command
                verb = command.args[0] if command.args else ""
                fine = command.name in _HARMLESS or (command.name == "go" and verb in _BUILDS) or command.name == ""
                if command.name in ("apt-get", "apt", "apk") or (command.name == "rm" and "/var/lib/apt" in str(command)):
                    fine = True
                if not fine:
                    seen = self.facts.seen_command(run, command, "does more than build")
                    return Obstacle(f"`{command.name}` may make something that the program needs at run time", (seen,))
        if (unread := self.unread()) is not None:
            return unread
        user = next((i for i in self.stage.body if i.keyword == "USER"), None)
        if user is not None and not re.fullmatch(r"\d+(:\d+)?", user.value):
            return Obstacle("the user is one that the runtime image would not have", (self.facts.seen(user, "names it"),))
        return None

    def _uses(self, project: Project, build: Placed) -> Iterator[Use]:
        """What the Go files of the module do that are part of the program."""
        files = []
        for path in go.sources(self.application, project, build):
            container = posixpath.join(project.container, path.removeprefix(project.folder).lstrip("/"))
            surroundings = Surroundings(path, container, self.workdir, self.application.variables)
            files.append((self.facts.context.read_bytes(path) or b"", surroundings))
        for (_, surroundings), reading in zip(files, go_sources.read(files), strict=True):
            yield from (*reading.uses, *reading.unknown)
            yield from self._named(surroundings, reading.texts)

    def _named(self, surroundings: Surroundings, texts: tuple[str, ...]) -> Iterator[Use]:
        """The files and folders of the build context that a literal names: whatever package it is handed to may read them."""
        for text in texts:
            path = surroundings.absolute(text)
            source = self.application.source(path) if path not in (None, self.workdir, "/") else None
            if source and not source.endswith((".go", "go.mod", "go.sum")) and self._has_data(source):
                yield Use(Act.READS, path, surroundings.path, self.application.line(surroundings.path, text, "").at.line, text)

    def _programs(self, uses: tuple[Use, ...], project: Project) -> dict[str, Evidence] | Obstacle:
        """The Debian packages with the programs that are started at run time, each with its line."""
        release = self._release()
        found: dict[str, Evidence] = {}
        started = [
            (s.what, s.seen) for s in self.app.started if s.how is How.PROGRAM and s.words and s is not self.app.started[0]
        ]
        started += [(u.what, self.app.seen(u, "starts a program")) for u in uses if u.act is Act.STARTS]
        for module in go.modules(project):
            seen = self.application.line(project.source("go.mod"), module, "is a module that starts programs")
            started += [(program, seen) for program in go_programs(module)]
        own = self._binary()
        for program, seen in started:
            if program is not None and program in (own, posixpath.basename(str(own)), "./" + posixpath.basename(str(own))):
                continue
            if program is None:
                return Obstacle("which program it starts is only known when it runs", (seen,))
            package = package_of(posixpath.basename(program), release)
            if program.rpartition("/")[2] in ("sh", "bash"):
                continue
            if package is None or package in ("golang", "make", "gcc"):
                return Obstacle(f'it starts "{program}", which the runtime image would not have', (seen,))
            found[package] = seen
        return found

    def _release(self) -> str | None:
        base = self.facts.image(self.stage)
        return base.release if base is not None else None

    # ---------------------------------------------------------------- putting it together

    def _cgo(self, project: Project, build: Placed) -> tuple[bool | None, str, tuple[Evidence, ...]]:
        """Whether the program needs cgo; why; and the line. None where a module is not known."""
        for path in go.sources(self.application, project, build):
            if go_sources.imports_cgo(self.facts.context.read_bytes(path) or b""):
                return True, f'{path} imports "C"', (self.application.line(path, '"C"', "is compiled with cgo"),)
        if any(flag in build.command.args for flag in ("-race", "-msan", "-buildmode=plugin", "-buildmode=c-shared")):
            return True, "a flag of the build takes cgo", (self.facts.seen(self.application.run, "is built"),)
        mod = project.source("go.mod")
        unknown = ""
        for module in go.modules(project):
            verdict = needs_cgo(module)
            if verdict:
                return True, f"{module} needs cgo", (self.application.line(mod, module, "needs cgo"),)
            unknown = unknown or (module if verdict is None else "")
        if unknown:
            return (
                None,
                f"whether {unknown} needs cgo is not known",
                (self.application.line(mod, unknown, "is not in our table"),),
            )
        return (
            False,
            "no module and no file of its own needs cgo",
            (self.facts.seen_in(mod, "names the modules, none with cgo"),),
        )

    def _is_set(self, build: Placed) -> str | None:
        """What CGO_ENABLED is set to for the build."""
        for word in build.command.sets:
            if word.startswith("CGO_ENABLED="):
                return word.partition("=")[2]
        return self.application.variables.get("CGO_ENABLED")

    def _assemble(
        self,
        binary: str,
        run: Instruction,
        build: Placed,
        project: Project,
        uses: tuple[Use, ...],
        programs: dict[str, Evidence],
    ) -> Plan | Obstacle:
        needs, why, seen = self._cgo(project, build)
        setting = self._is_set(build)
        headers = [n for n in self.installed() if n.endswith("-dev")]
        static = needs is False or setting == "0"
        if setting == "0":
            why, seen = (
                "CGO_ENABLED=0: the program is linked statically",
                (self.facts.seen_command(run, build.command, "builds without cgo"),),
            )
        elif setting == "1" and needs is not True:
            static, why = False, "CGO_ENABLED=1 asks for cgo"
        choice = self._runtime(static=static, programs=programs, headers=headers)
        if isinstance(choice, Obstacle):
            return choice
        runtime, decided = choice
        fates = default_fates(self.stage, build_only=_BUILD_ONLY)
        result = Plan(
            runtime,
            fates,
            f"built in one stage, run on {runtime}",
            f"{decided} ({why})",
            "The compiler, the sources and the caches of the build stay behind; the image has the program and what it reads.",
        )
        result.implies = frozenset({Aspect.ENV})  # the variables of the Go image serve the go command alone
        result.checks.append(Check("what the program links is known", holds=True if static else None, evidence=seen))
        if static and setting is None:
            self._set_cgo(result, run, build)
            result.caveats += ("Go resolves host names by itself then, not through the C library",)
        if runtime in (STATIC, DYNAMIC, "scratch"):
            result.caveats += (_NO_SHELL,)
        if self.app.shells and runtime in (STATIC, DYNAMIC, "scratch"):
            return Obstacle("something is run through a shell, which the runtime image does not have", self.app.shells[:1])
        self._files(result, uses, binary)
        result.first.append(from_stage(self.builder, binary, binary))
        self._libraries(result, runtime, programs, headers)
        result.evidence += [self.facts.seen_command(run, build.command, f"builds {binary}")]
        return result

    def _runtime(self, *, static: bool, programs: dict[str, Evidence], headers: list[str]) -> tuple[str, str] | Obstacle:
        choice, release = self.facts.base_choice, self._release()
        slim = f"debian:{release}-slim" if release is not None else None
        if choice in ("scratch", "alpine"):
            if not static:
                return Obstacle(f"--base {choice} takes a statically linked program", ())
            if programs or self.app.shells:
                return Obstacle(
                    f"--base {choice}: the program starts others", tuple(programs.values())[:1] or self.app.shells[:1]
                )
            return ("scratch" if choice == "scratch" else "alpine:3.23"), f"--base {choice}: it is compiled and needs no shell"
        needs_more = bool(programs) or bool(headers) or choice == "slim"
        if needs_more:
            if slim is None:
                return Obstacle(
                    "the release of the builder's distribution is not known", (self.facts.seen(self.stage.base, "is it"),)
                )
            what = f"starts {next(iter(programs))}" if programs else f"links {headers[0]}" if headers else "--base slim"
            return slim, f"it is compiled, and {what}"
        return (STATIC if static else DYNAMIC), "it is compiled, and needs no shell"

    def _set_cgo(self, result: Plan, run: Instruction, build: Placed) -> None:
        command = build.command
        start = self.facts.source_span(run, command.span).start
        result.edits.append(Edit(Span(start, start), "CGO_ENABLED=0 "))
        text = f"CGO_ENABLED=0 {command}"
        result.changes.append(Change(Aspect.COMMANDS, removed=(str(command),), added=(text,)))

    def _libraries(self, result: Plan, runtime: str, programs: dict[str, Evidence], headers: list[str]) -> None:
        """What the runtime image has to be given beside the binary: certificates, time zones, packages."""
        if runtime == "scratch":
            for path in ("/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo", "/etc/passwd", "/etc/group"):
                result.first.append(from_stage(self.builder, path, path))
        elif runtime.startswith("alpine"):
            text = "apk add --no-cache ca-certificates tzdata"
            result.first.insert(0, Line(f"RUN {text}", Aspect.COMMANDS, commands_in(text)))
        elif runtime.startswith("debian"):
            names = {*programs, "ca-certificates", "tzdata"}
            for name in headers:
                libraries = runtime_libraries(name, self._release())
                if libraries is None:
                    result.checks.append(Check(f"which library stands behind {name} is known", holds=None))
                names |= set(libraries or ())
            names |= {n for n in self.installed() if not is_build_only(n) and n in programs}
            result.first.insert(0, self.apt_line(names))
            result.evidence += list(programs.values())

    def _files(self, result: Plan, uses: tuple[Use, ...], binary: str) -> None:
        """Copy what the program reads at run time; all that is not source where that is not known."""
        reads = [u for u in uses if u.act is Act.READS and not (u.what or "").startswith("~")]
        wanted: dict[str, None] = {}
        everything: Use | None = None
        for use in reads:
            if use.what is None or (use.what.endswith(ANYTHING) and folder(use.what) in ("/", self.workdir)):
                everything = use
            elif not _SYSTEM.match(use.what):
                wanted[folder(use.what) if ANYTHING in use.what or "*" in use.what else use.what] = None
                self._seen(result, use)
        if everything is not None:
            claim = "the files that it reads are known"
            seen = self.app.seen(
                everything, "is read, and which file it is is only known when it runs: all but the sources is kept"
            )
            result.checks.append(Check(claim, holds=None, evidence=(seen,)))
        for copy in self.application.copies:
            if copy.placements is None:
                claim = f"what the copies bring is known: {copy.unknown}"
                result.checks.append(Check(claim, holds=False, evidence=(self.facts.seen(copy.instruction, "is not"),)))
                continue
            outside = self.workdir is None or not any(
                r.startswith(self.workdir.rstrip("/") + "/") or r == self.workdir for r in copy.roots
            )
            paths = list(self._roots(copy, None if everything is not None or outside else tuple(wanted)))
            for source, container in paths:
                destination = self._destination(container, is_folder=self.facts.context.is_folder(source))
                line = from_context([clean(source)], destination, copy.flags)
                if line not in result.first and container != binary:
                    result.first.append(line)
        brought = {c for copy in self.application.copies for _, c in self._roots(copy, None)}
        for path in wanted:
            if not any(
                path == b or path.startswith(b.rstrip("/") + "/") or b.startswith(path.rstrip("/") + "/") for b in brought
            ):
                seen = next(self.app.seen(u, "reads it") for u in reads if u.what and u.what.startswith(path))
                result.checks.append(Check(f"{path} need not be there: no COPY brings it", holds=None, evidence=(seen,)))

    def _seen(self, result: Plan, use: Use) -> None:
        result.evidence.append(self.app.seen(use, "reads it at run time: copied along"))

    def _roots(self, copy: Copy, wanted: tuple[str, ...] | None) -> Iterator[tuple[str, str]]:
        """The files and folders of a copy to carry over: those in `wanted`, or all but sources and papers; as high up as they
        stand in the context."""
        for placement in copy.placements or ():
            if not placement.is_folder:
                if _is_wanted(placement.path, wanted) and not _DOCUMENTS.search(placement.source):
                    yield placement.source, placement.path
                continue
            for name in self.facts.context.names(placement.source):
                source, container = posixpath.join(placement.source, name), posixpath.join(placement.path, name)
                if _DOCUMENTS.search(source) or not self._has_data(source):
                    continue
                if wanted is None or _is_wanted(container, wanted):
                    yield source, container
                elif deeper := [w for w in wanted if w.startswith(container + "/")]:
                    yield from (
                        (posixpath.join(source, w[len(container) + 1 :]), w)
                        for w in deeper
                        if self._exists(source, container, w)
                    )

    def _exists(self, source: str, container: str, wanted: str) -> bool:
        return self.facts.context.kind(posixpath.join(source, wanted[len(container) + 1 :])) is not None

    def _has_data(self, source: str) -> bool:
        """Whether a file is no source, or a folder has one that is not."""
        if not self.facts.context.is_folder(source):
            return not source.endswith(".go")
        return any(not f.endswith((".go", ".md")) for f in self.facts.context.walk(source))

    def _destination(self, container: str, *, is_folder: bool) -> str:
        base = (self.workdir or "/").rstrip("/") + "/"
        shown = f"./{container[len(base) :]}" if container.startswith(base) and self.workdir not in (None, "/") else container
        return shown + "/" if is_folder else shown


def _program_path(name: str, workdir: str | None) -> str | None:
    """The container path of a program: as it is, below the working directory, or the bare name of one on PATH."""
    if name.startswith("/"):
        return posixpath.normpath(name)
    if "/" in name:
        return None if workdir is None else posixpath.normpath(posixpath.join(workdir, name))
    return name


def _is_wanted(container: str, wanted: tuple[str, ...] | None) -> bool:
    return wanted is None or any(w == container or container.startswith(w.rstrip("/") + "/") for w in wanted)
