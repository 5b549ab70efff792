"""Go: compile in the builder; ship the binary, and the files that it reads, on a base without a distribution."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts import go, go_sources
from optimizer.facts.commands import apt_install, is_apt
from optimizer.facts.images import architectures, distroless, glibc_at_least, image
from optimizer.facts.packages import (
    base_programs,
    go_programs,
    has_program,
    is_build_only,
    is_builtin,
    package_of,
    runtime_libraries,
)
from optimizer.facts.started import How
from optimizer.facts.uses import Act, Surroundings, Use
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Change, Check, Safety
from optimizer.split.frame import Line, Obstacle, Plan, Strategy, default_fates, from_stage, writes_a_file
from optimizer.split.go_files import Files
from optimizer.split.go_program import Linking, Program, linking, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.rewrite import Evidence

BASES = frozenset({"golang"})
BEST = Safety.SAFE
UNPROVEN: tuple[str, ...] = ()
STATIC, DYNAMIC = distroless("static"), distroless("base")
# Who is in /etc/passwd of the distroless images; a number is looked up there, too.
_IN_DISTROLESS = frozenset({"root", "nobody", "nonroot", "0", "65532", "65534"})
# Variables that only the go command and apt read.
_BUILD_ONLY = frozenset(
    """CGO_ENABLED GOOS GOARCH GOARM GOAMD64 GOFLAGS GOPROXY GOPRIVATE GONOSUMDB GONOSUMCHECK GOSUMDB GONOPROXY GO111MODULE
    GOPATH GOBIN GOCACHE GOMODCACHE GOTOOLCHAIN GOEXPERIMENT CGO_CFLAGS CGO_LDFLAGS DEBIAN_FRONTEND""".split()
)
# What the Go image sets, and nothing at run time should refer to.
_BASE_VARIABLES = re.compile(r"\$\{?(GOPATH|GOROOT|GOLANG_VERSION|GOTOOLCHAIN|GOBIN)\b")
_NO_SHELL = "the image has no shell: docker exec finds none to start; images with the tag debug have one"
_HARMLESS = frozenset("cd ls echo set pwd true : chmod strip upx env printf cat which test [ rm exit head".split())
_GO_VERBS = frozenset({"mod", "build", "install", "vet", "test", "version", "fmt", "list", "clean", "work"})
_GIT_VERBS = frozenset({"describe", "rev-parse", "log", "config", "tag", "show"})
# Modules that read files by a convention of their own.
_CONVENTIONS = re.compile(r"(^|/)(beego|revel|buffalo|gf|goravel|iris|autoload|packr)(/|$)")
_TEMPORARY = re.compile(rb"CreateTemp|MkdirTemp|TempDir|TempFile|ParseMultipartForm|FormFile")
_PROBE = re.compile(r"(?:liveness|readiness|startup)Probe:\s*\n\s*exec:")


def plan(document: Document, facts: Facts, stage: Stage) -> Plan | Obstacle:
    """How to split a stage that builds and starts a Go program."""
    return _Go(document, facts, stage).plan()


class _Go(Strategy):
    def plan(self) -> Plan | Obstacle:
        found = program(self)
        if isinstance(found, Obstacle):
            return found
        if (odd := self._odd_run() or self._odd_user() or self._odd_setting() or self._odd_platform()) is not None:
            return odd
        linked = linking(self, found)
        if isinstance(linked, Obstacle):
            return linked
        uses = tuple(self._uses(found))
        programs = self._programs(uses, found)
        if isinstance(programs, Obstacle):
            return programs
        return self._assemble(found, linked, uses, programs)

    # ---------------------------------------------------------------- what else the stage does

    def _odd_run(self) -> Obstacle | None:
        """A RUN that does something for the running image that cannot be carried over."""
        if (unread := self.unread()) is not None:
            return unread
        for run, placed in self.commands():
            command = placed.command
            if writes_a_file(command) or not self._is_harmless(command):
                seen = self.facts.seen_command(run, command, "does more than build")
                name = command.name or "a RUN"
                return Obstacle(f"`{name}` may make something that the program needs at run time", (seen,))
        return None

    def _is_harmless(self, command: Command) -> bool:
        name, verb = command.name, command.args[0] if command.args else ""
        if name == "git":
            return verb in _GIT_VERBS
        if name in ("apt-get", "apt", "apk", "go"):
            return name != "go" or verb in _GO_VERBS
        return name in _HARMLESS or name in ("", "export")

    def _odd_user(self) -> Obstacle | None:
        names = [(i.value, self.facts.seen(i, "names it")) for i in self.stage.body if i.keyword == "USER"]
        here = self.facts.seen(self.stage.base, "is the base")
        names += [(service.user, here) for service in self.facts.services if service.user]
        for value, seen in names:
            if not re.fullmatch(r"(\d+|root|nobody|nonroot)(:(\d+|root|nobody|nonroot))?", value or ""):
                return Obstacle(f"the user {value} is one that the runtime image would not have", (seen,))
        return None

    def _odd_setting(self) -> Obstacle | None:
        for instruction in self.stage.body:
            if instruction.keyword in ("RUN", "COPY", "ADD", "ARG") or not _BASE_VARIABLES.search(instruction.value):
                continue
            if not {pair.name for pair in instruction.pairs} <= {"PATH"} or instruction.keyword != "ENV":
                seen = self.facts.seen(instruction, "refers to it")
                return Obstacle("a variable of the Go image is used, which the runtime image does not set", (seen,))
        return None

    def _odd_platform(self) -> Obstacle | None:
        flag = self.stage.base.flag("platform")
        wanted = {p.removeprefix("linux/") for s in self.facts.services for p in s.platforms}
        wanted |= {(flag.value or "").removeprefix("linux/")} if flag is not None and "$" not in (flag.value or "$") else set()
        missing = wanted - set(architectures(STATIC, "full") or wanted)
        if missing:
            seen = self.facts.seen(self.stage.base, "is built for it")
            return Obstacle(f"there is no distroless image for {', '.join(sorted(missing))}", (seen,))
        return None

    def _uses(self, found: Program) -> Iterator[Use]:
        """What the Go files of the program do, and the files that their literals name."""
        files = []
        for path in go.sources(self.application, found.project, found.build):
            container = posixpath.join(found.project.container, path.removeprefix(found.project.folder).lstrip("/"))
            surroundings = Surroundings(path, container, self.workdir, self.application.variables)
            files.append((self.facts.context.read_bytes(path) or b"", surroundings))
        for (_, surroundings), reading in zip(files, go_sources.read(files), strict=True):
            yield from (*reading.uses, *reading.unknown)
            yield from self._named(surroundings, reading.texts)
            for name in reading.imports:
                if _CONVENTIONS.search(name):
                    line = self.application.line(surroundings.path, name, "").at.line
                    yield Use(Act.READS, None, surroundings.path, line, name)

    def _named(self, surroundings: Surroundings, texts: tuple[str, ...]) -> Iterator[Use]:
        """The files and folders of the build context that a literal names: whatever package it is handed to may read them."""
        for text in texts:
            path = surroundings.absolute(text.removeprefix("file://").removeprefix("file:").partition("?")[0])
            source = self.application.source(path) if path not in (None, self.workdir, "/") else None
            if source and not source.endswith((".go", "go.mod", "go.sum")):
                yield Use(Act.READS, path, surroundings.path, self.application.line(surroundings.path, text, "").at.line, text)

    def _programs(self, uses: tuple[Use, ...], found: Program) -> dict[str, Evidence] | Obstacle:
        """The Debian packages with the programs that are started at run time, each with its line; under "" the line of one that
        every Debian has."""
        wanted: dict[str, Evidence] = {}
        started = [(s.what, s.seen) for s in self.app.started if s.how is How.PROGRAM]
        started += [(u.what, self.app.seen(u, "starts a program")) for u in uses if u.act is Act.STARTS]
        for module in go.modules(found.project):
            seen = self.application.line(found.project.source("go.mod"), module, "is a module that starts programs")
            started += [(name, seen) for name in go_programs(module)]
        for name, seen in started:
            if name is None:
                return Obstacle("which program it starts is only known when it runs", (seen,))
            short = posixpath.basename(name)
            if short == posixpath.basename(found.path) or is_builtin(short):
                continue
            package = package_of(short, self._release())
            if short in base_programs():
                wanted.setdefault("", seen)
            elif package is None or short in ("go", "gofmt", "make", "gcc") or is_build_only(package):
                return Obstacle(f'it starts "{name}", which the runtime image would not have', (seen,))
            else:
                wanted[package] = seen
        if self.app.shells:
            wanted.setdefault("", self.app.shells[0])
        return wanted

    def _release(self) -> str | None:
        base = self.facts.image(self.stage)
        return base.release if base is not None else None

    # ---------------------------------------------------------------- putting it together

    def _assemble(
        self, found: Program, linked: Linking, uses: tuple[Use, ...], programs: dict[str, Evidence]
    ) -> Plan | Obstacle:
        headers = [n for n in self.installed() if n.endswith("-dev")] if not linked.is_static else []
        choice = self._runtime(linked, programs, headers)
        if isinstance(choice, Obstacle):
            return choice
        runtime, decided = choice
        if (person := self._unknown_person(uses, runtime)) is not None:
            return person
        temporary = next((u for u in uses if u.act is Act.WRITES and (u.what or "").startswith("/tmp")), None)  # noqa: S108
        if runtime == "scratch" and temporary is not None:
            seen = self.app.seen(temporary, "writes there")
            return Obstacle("an empty image has no folder for temporary files", (seen,))
        result = Plan(
            runtime,
            default_fates(self.stage, build_only=_BUILD_ONLY),
            f"built in one stage, run on {runtime}",
            f"{decided} ({linked.why})",
            "The compiler, the sources and the caches of the build stay behind; the image has the program and what it reads.",
            implies=frozenset({Aspect.ENV}),  # the variables of the Go image serve the go command alone
        )
        result.checks.append(Check("what the program links is known", holds=linked.is_static or None, evidence=linked.seen))
        result.checks += self._other_packages(programs)
        result.checks += [check] if (check := self._older_library(linked, runtime)) is not None else []
        if (probe := self._probe()) is not None:
            result.checks.append(probe)
        if linked.sets_cgo:
            self._set_cgo(result, found)
        if runtime in (STATIC, DYNAMIC, "scratch"):
            result.caveats += (_NO_SHELL,)
        files = Files(self, uses, found.path)
        if (odd := files.find()) is not None:
            return odd
        result.first += [*files.lines, from_stage(self.builder, found.path, found.path)]
        result.evidence += files.evidence
        result.checks += files.checks
        self._more(result, runtime, programs, headers)
        result.evidence.append(self.facts.seen_command(found.run, found.build.command, f"builds {found.path}"))
        return result

    def _runtime(self, linked: Linking, programs: dict[str, Evidence], headers: list[str]) -> tuple[str, str] | Obstacle:
        choice, release, base = self.facts.base_choice, self._release(), self.facts.image(self.stage)
        here = self.facts.seen(self.stage.base, "is the base")
        if not linked.is_static and (base is None or base.libc != "glibc"):
            return Obstacle("the program is linked against the C library of Alpine", (here, *linked.seen))
        if choice in ("scratch", "alpine"):
            return self._bare(choice, linked, programs)
        if programs or headers or choice == "slim":
            if release is None:
                return Obstacle("the release of the builder's distribution is not known", (here,))
            names = [name or "a shell, or a program of every Debian" for name in programs]
            what = f"starts {names[0]}" if names else f"links {headers[0]}" if headers else "--base slim asks for a shell"
            return f"debian:{release}-slim", f"it is compiled, and {what}"
        return (STATIC if linked.is_static else DYNAMIC), "it is compiled, and needs no shell"

    def _bare(self, choice: str, linked: Linking, programs: dict[str, Evidence]) -> tuple[str, str] | Obstacle:
        if not linked.is_static:
            return Obstacle(f"--base {choice} takes a statically linked program", linked.seen)
        if programs:
            return Obstacle(f"--base {choice}: the program starts others, or a shell", tuple(programs.values())[:1])
        base = self.facts.image(self.stage)
        if choice == "scratch":
            if base is None or base.distribution != "debian":
                seen = self.facts.seen(self.stage.base, "is the builder")
                return Obstacle("the builder has no time zones to copy into an empty image", (seen,))
            sources = (f for copy in self.application.copies for f in self.facts.files_of(copy) if f.endswith(".go"))
            user = next((f for f in sources if _TEMPORARY.search(self.facts.context.read_bytes(f) or b"")), None)
            if user is not None:
                seen = self.facts.seen_in(user, "makes temporary files")
                return Obstacle("an empty image has no folder for temporary files", (seen,))
        runtime = "scratch" if choice == "scratch" else "alpine:3.23"
        return runtime, f"--base {choice} asks for it; it is compiled and needs no shell"

    def _unknown_person(self, uses: tuple[Use, ...], runtime: str) -> Obstacle | None:
        """A user or group that the program looks up by name, and that the runtime image does not have."""
        if runtime not in (STATIC, DYNAMIC):
            return None  # Debian's own users are in Debian's images, and an empty image gets the builder's
        for use in uses:
            if use.act is Act.ASKS and use.what not in _IN_DISTROLESS:
                who = use.what or "one that is only known when it runs"
                seen = self.app.seen(use, "looks it up")
                return Obstacle(f"it looks up the user or group {who}, which the runtime image does not have", (seen,))
        return None

    def _older_library(self, linked: Linking, runtime: str) -> Check | None:
        """Whether the C library of the runtime image is as new as the builder's; None for a program without one."""
        base, new = self.facts.image(self.stage), image(runtime)
        if linked.is_static or base is None or new is None:
            return None
        claim = f"the C library of {runtime} is as new as the builder's"
        return Check(claim, holds=glibc_at_least(new, base), evidence=linked.seen)

    def _other_packages(self, programs: dict[str, Evidence]) -> Iterator[Check]:
        """Packages that are installed and hold neither build tools nor programs: fonts, data, libraries."""
        for run, placed in self.commands():
            install = apt_install(placed.command) if is_apt(placed.command, "install") else None
            names = install.packages if install is not None else ()
            if placed.command.name == "apk" and "add" in placed.command.args:
                names = tuple(a for a in placed.command.args if not a.startswith("-") and a != "add")
            for name in names:
                if name not in programs and not is_build_only(name) and not has_program(name):
                    seen = self.facts.seen_command(run, placed.command, f"installs {name}")
                    yield Check(f"{name} serves the build alone", holds=None, evidence=(seen,))

    def _probe(self) -> Check | None:
        """A probe of Kubernetes that runs a command in the container, if a file of the context has one."""
        paths = (p for p in self.facts.context.walk() if p.endswith((".yaml", ".yml")))
        path = next((p for p in paths if _PROBE.search(self.facts.context.read(p) or "")), None)
        if path is None:
            return None
        seen = self.facts.seen_in(path, "has a probe that runs a command")
        return Check("no probe runs a command in the container", holds=None, evidence=(seen,))

    def _set_cgo(self, result: Plan, found: Program) -> None:
        command = found.build.command
        start = self.facts.source_span(found.run, command.span).start
        result.edits.append(Edit(Span(start, start), "CGO_ENABLED=0 "))
        changed = f"CGO_ENABLED=0 {command}"
        result.changes.append(Change(Aspect.COMMANDS, removed=(str(command),), added=(changed,)))
        result.caveats += ("Go resolves host names by itself then, not through the C library",)

    def _more(self, result: Plan, runtime: str, programs: dict[str, Evidence], headers: list[str]) -> None:
        """What the runtime image has to be given beside the program: certificates, time zones, packages."""
        if runtime == "scratch":
            for path in ("/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo", "/etc/passwd", "/etc/group"):
                result.first.append(from_stage(self.builder, path, path))
        elif runtime.startswith("alpine"):
            text = "apk add --no-cache ca-certificates tzdata"
            result.first.insert(0, Line(f"RUN {text}", Aspect.COMMANDS, commands_in(text)))
        elif runtime.startswith("debian"):
            names = {*(name for name in programs if name), "ca-certificates", "tzdata"}
            for name in headers:
                libraries = runtime_libraries(name, self._release())
                if libraries is None:
                    result.checks.append(Check(f"which library stands behind {name} is known", holds=None))
                names |= set(libraries or ())
            result.first.insert(0, self.apt_line(names))
            result.evidence += list(programs.values())
