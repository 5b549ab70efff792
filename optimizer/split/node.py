"""Node: install and build in the builder; ship the production dependencies, the output of the build and what is served."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.contract import entries, exec_entry
from optimizer.facts.images import DISTROLESS, distroless, image, is_distroless, variant
from optimizer.facts.manifests import Application, Project
from optimizer.facts.node import is_berry, is_project_install, parse_json
from optimizer.facts.node_packages import dependencies, development_in_scripts, development_use
from optimizer.facts.packages import is_build_only, is_builder
from optimizer.facts.slim import SlimNeeds
from optimizer.facts.started import How
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Check, Safety
from optimizer.split.frame import (
    USED_BY_HAND,
    Fate,
    Line,
    Obstacle,
    Plan,
    Strategy,
    default_fates,
    free_name,
    from_context,
    from_stage,
    writes_a_file,
)
from optimizer.split.node_build import Build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.copies import Copy
    from optimizer.facts.images import Image
    from optimizer.rewrite import Evidence

BASES = frozenset({"node"})
BEST = Safety.UNSAFE
UNPROVEN = USED_BY_HAND
_BUILD_INPUTS = re.compile(
    r"(^|/)(tsconfig[^/]*\.json|[^/]*\.tsbuildinfo|package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|(vite|vitest|webpack|rollup|babel|jest|tailwind|postcss|eslint|prettier|tsup|esbuild|commitlint|playwright|cypress|karma)[^/]*\.config\.[cm]?[jt]s"
    r"|Dockerfile[^/]*|[^/]*\.Dockerfile|\.dockerignore|\.git[^/]*|\.eslint[^/]*|\.prettier[^/]*|\.editorconfig|README[^/]*|LICENSE[^/]*"
    r"|[^/]*\.md|(docker-)?compose[^/]*\.ya?ml|jest\.[^/]*|\.github|\.vscode|\.idea|node_modules|tests?|__tests__|spec|e2e|coverage)$",
    re.IGNORECASE,
)
# What is installed for all projects to install or build with.
_BUILD_TOOLS = re.compile(r"(npm|yarn|pnpm|typescript|@nestjs/cli|@angular/cli)(@|$)")
_ELSEWHERE = re.compile(r"\s(--prefix|-C|--cwd|--dir|--workspaces?|-w|-ws|--filter)(\s|=|$)")
# Packages whose browser or binary is downloaded into a home folder.
_AT_HOME = frozenset({"puppeteer", "playwright", "playwright-chromium", "cypress", "electron"})
_SOURCE = re.compile(r"\.([cm]?tsx?|map)$")


@dataclass(frozen=True, slots=True)
class _Install:
    """The RUN that installs the dependencies, the command in it, and the project."""

    run: Instruction
    placed: Placed
    project: Project


def plan(document: Document, facts: Facts, stage: Stage) -> Plan | Obstacle:
    """How to split a stage that installs, builds and starts a Node application."""
    return _Node(document, facts, stage).plan()


class _Node(Strategy):
    def __init__(self, document: Document, facts: Facts, stage: Stage) -> None:
        super().__init__(document, facts, stage)
        self.deps = free_name(document, "deps")

    def plan(self) -> Plan | Obstacle:
        install = self._install()
        if isinstance(install, Obstacle):
            return install
        outputs = self._outputs(install)
        if isinstance(outputs, Obstacle):
            return outputs
        if not outputs and self.facts.base_choice != "distroless":
            return Obstacle("nothing is built in the image", is_silent=True)
        if (odd := self._odd_run()) is not None:
            return odd
        used = development_use(self.app, install.project) or development_in_scripts(
            install.project, ignores_scripts="--ignore-scripts" in install.placed.command.args
        )
        if used is not None:
            return Obstacle(used.claim, used.evidence)
        if not install.placed.command.is_unconditional:
            seen = self.facts.seen_command(install.run, install.placed.command, "installs")
            return Obstacle("the dependencies are installed in more ways than one", (seen,))
        return self.odd_copy(("node",)) or self._assemble(install, outputs)

    def _placed(self, run: Instruction) -> tuple[Placed, ...]:
        return tuple(p for p in self.facts.placed(run) or () if is_project_install(p))

    # ---------------------------------------------------------------- reading the stage

    def _install(self) -> _Install | Obstacle:
        found: list[_Install] = []
        for run in self.runs:
            for placed in self.facts.placed(run) or ():
                if is_project_install(placed):
                    project = Application(self.facts, run).project(placed, "package.json")
                    seen = self.facts.seen_command(run, placed.command, "installs")
                    if project is None:
                        return Obstacle("no package.json of the build context is where it installs", (seen,))
                    found.append(_Install(run, placed, Project(self.application, project.folder, project.container)))
        if not found:
            return Obstacle("no dependencies are installed in the image", is_silent=True)
        plain = [i for i in found if not _names(i.placed)]
        last = (plain or found)[-1]
        if added := next((n for i in found if i is not last for n in _names(i.placed) if not is_builder(n)), None):
            return Obstacle(f"{added} is added to what package.json names", (self.facts.seen(last.run, "installs the rest"),))
        here = self.facts.seen_command(last.run, last.placed.command, "installs")
        if self.workdir is None or last.project.container != self.workdir:
            return Obstacle("the dependencies are installed elsewhere than in the working directory", (here,))
        if (last.placed.command.name or "") not in ("npm", "yarn"):
            return Obstacle(f"how {last.placed.command.name} leaves out development packages is not known here", (here,))
        return self._odd_install(last, here) or last

    def _odd_install(self, install: _Install, here: Evidence) -> Obstacle | None:
        """What stands against installing the production dependencies in the same way in a stage of their own."""
        package = parse_json(install.project.read("package.json")) or {}
        command = install.placed.command
        if package.get("workspaces"):
            return Obstacle("the project has workspaces: which of them run is not known", (here,))
        if command.name == "yarn" and is_berry(self.facts.context):
            return Obstacle("Yarn 2 and later leave out development packages in another way", (here,))
        if any(re.match(r"--include|--production=false|--only=dev", arg) for arg in command.args):
            return Obstacle("the install asks for development dependencies", (here,))
        if install.placed.cwd != self.facts.state(install.run).workdir:
            return Obstacle("the install changes the folder first", (here,))
        first = (self.facts.placed(install.run) or (install.placed,))[0]
        if first != install.placed:
            return Obstacle("something runs in front of the install, in the same RUN", (here,))
        if home := next((n for n in dependencies(install.project) if n in _AT_HOME), None):
            return Obstacle(f"{home} keeps its browser in a home folder", (here,))
        return self.cross_built()

    def _outputs(self, install: _Install) -> dict[str, Evidence] | Obstacle:
        """The folders that the build makes, below the working directory, each with the line that says so."""
        build = Build(install.project, self.application.variables)
        found: dict[str, Evidence] = {}
        for run, placed in self.commands():
            if is_project_install(placed):
                continue
            seen = self.facts.seen_command(run, placed.command, "builds")
            if placed.command.name in ("npm", "yarn", "pnpm") and _ELSEWHERE.search(str(placed.command)):
                return Obstacle("a part of the project is installed or built in another folder", (seen,))
            text = build.text_of(placed.command)
            folders = build.folders(text) if text is not None else []
            if folders is None:
                return Obstacle(f"what `{(text or '')[:50]}` writes is not known", (seen,))
            found |= dict.fromkeys(folders, seen)
        return found

    # ---------------------------------------------------------------- what stands against it

    def _odd_run(self) -> Obstacle | None:
        """A RUN that makes something for the running image that is not carried over."""
        for run, placed in self.commands():
            command = placed.command
            fine = command.name in ("npm", "yarn", "npx", "tsc", "cd", "echo", "rm", "apt-get", "apt", "corepack", "")
            if command.name in ("npm", "yarn") and any(a in ("-g", "--global", "global") for a in command.args):
                names = [a for a in command.args if not a.startswith("-") and a not in ("install", "i", "add", "global")]
                odd = next((n for n in names if not _BUILD_TOOLS.match(n)), None)
                if odd is not None:
                    seen = self.facts.seen_command(run, command, "installs it for all projects")
                    return Obstacle(f"{odd} is installed for all projects, and may be needed at run time", (seen,))
            if command.name == "npx" and command.args[:1] == ("prisma",):
                fine = False
            if not fine or writes_a_file(command):
                seen = self.facts.seen_command(run, command, "does more than install and build")
                return Obstacle(f"`{command.name}` may make something that the application needs at run time", (seen,))
        if (unread := self.unread()) is not None:
            return unread
        mid = next((i for i in self.stage.body if i.keyword == "USER" and i.index < self.runs[-1].index), None)
        if mid is not None:
            return Obstacle("the user changes before the build", (self.facts.seen(mid, "changes it"),))
        return None

    # ---------------------------------------------------------------- putting it together

    def _assemble(self, install: _Install, outputs: dict[str, Evidence]) -> Plan | Obstacle:
        prefix = [i for i in self.stage.body if i.index < install.run.index]
        late = [c for c in self.facts.copies(self.stage) if c.instruction.index < install.run.index]
        extra = {r.index for r in self.runs if r.index < install.run.index and any(_names(p) for p in self._placed(r))}
        prefix = [i for i in prefix if i.index not in extra]
        if any(p.is_folder for c in late for p in c.placements or ()):
            seen = self.facts.seen(install.run, "installs behind them")
            return Obstacle("the sources are copied before the dependencies are installed", (seen,))
        chosen = self._runtime()
        if isinstance(chosen, Obstacle):
            return chosen
        runtime, decided = chosen
        base = self.facts.image(self.stage)
        assert base is not None
        looking = SlimNeeds(self.facts, self.stage, base, ())
        looking.bring(None, self.installed())
        needs = looking.look() if runtime != self.stage.image else None
        fates = default_fates(self.stage)
        self._carry_over(fates)
        result = Plan(
            runtime,
            fates,
            f"built in one stage, run on {runtime} with production dependencies only",
            decided,
            "The compiler, the sources and the development dependencies stay in the builder.",
        )
        if outputs:
            result.between += list(self._deps_stage(prefix, install))
        if is_distroless(runtime):
            self._started_by_node(result)
        packages = dict(needs.packages) if needs is not None else {}
        packages |= {n: seen for n, seen in self.installed().items() if not is_build_only(n) and n != "python3"}
        if packages and is_distroless(runtime):
            name, seen = next(iter(packages.items()))
            return Obstacle(f"{name} is needed at run time, and a distroless image cannot install it", (seen,))
        if packages:
            result.first.append(self.apt_line(packages))
        result.first += self._brought(install, outputs)
        if (lost := self._lost_entry(outputs)) is not None:
            return lost
        result.evidence += [
            self.facts.seen_command(install.run, install.placed.command, "installs development dependencies too"),
            *(outputs[out] for out in list(outputs)[:1]),
        ]
        if needs is not None:
            result.checks += [c for c in needs.checks if c.holds is not True]
        if (link := self.linked()) is not None:
            result.checks.append(link)
        if not self.app.is_read:
            result.checks.append(Check("no source loads a package that only development has", holds=None))
        return result

    def _brought(self, install: _Install, outputs: dict[str, Evidence]) -> Iterator[Line]:
        """What the runtime stage copies: files of the context, the production dependencies, and what the build made."""
        yield from (line for _, line in self._files(outputs))
        stage, folder = (self.deps if outputs else self.builder), install.project.container
        yield from_stage(stage, posixpath.join(folder, "node_modules"), "./node_modules")
        yield from (from_stage(self.builder, posixpath.join(folder, out), f"./{out}") for out in outputs)

    def _runtime(self) -> tuple[str, str] | Obstacle:
        """The base of the runtime stage, and the question that settled it."""
        base, choice = self.facts.image(self.stage), self.facts.base_choice
        assert base is not None
        bare = self._distroless(base)
        if choice == "distroless" or (choice == "auto" and base.release == "trixie" and isinstance(bare, str)):
            if isinstance(bare, Obstacle):
                return bare
            return bare, "nothing but node is started, and no shell: a distroless image of the same Node does"
        reference, _ = variant(self.stage.image, "slim")
        if reference and image(reference) is not None and base.kind == "full":
            needs = "--base slim" if choice == "slim" else self._why_not_distroless(base, bare)
            return reference, f"it is built here; the start command needs production dependencies alone; {needs}"
        return self.stage.image, "it is built here, and the start command needs production dependencies alone"

    def _started_by_node(self, result: Plan) -> None:
        """The distroless image starts node by itself: CMD keeps what node is to run."""
        command = self.stage.last("CMD")
        words = command.exec_form if command is not None else None
        if command is not None and words:
            text = json.dumps(list(words[1:]), ensure_ascii=False)
            result.instead[command.index] = Line(f"CMD {text}", Aspect.CMD, (exec_entry(words[1:]),))
        result.implies = frozenset({Aspect.ENTRYPOINT, Aspect.ENV})

    def _why_not_distroless(self, base: Image, bare: str | Obstacle) -> str:
        if isinstance(bare, Obstacle):
            return f"not distroless, since {bare.reason}"
        return f"not distroless, which is Debian 13, while this Node is on {base.release or 'another release'}"

    def _distroless(self, base: Image) -> str | Obstacle:
        """The distroless image with the same major version of Node, or why the application needs more than that."""
        major = (base.version or "").partition(".")[0]
        name = f"{DISTROLESS}nodejs{major}"
        here = self.facts.seen(self.stage.base, "is the base")
        if image(name) is None:
            return Obstacle(f"there is no distroless image of Node {major or base.tag} that is maintained", (here,))
        if base.libc != "glibc":
            return Obstacle("packages that are built for musl do not run on Debian", (here,))
        if re.fullmatch(r"\d+\.\d+.*", base.version or ""):
            return Obstacle(f"distroless images have the newest Node {major} alone, and {base.version} is pinned", (here,))
        if self.app.shells:
            return Obstacle("something is started through a shell", self.app.shells[:1])
        other = next((p for p in self.app.programs if p is not self.app.programs[0] or p.what != "node"), None)
        if other is not None:
            return Obstacle(f'it starts "{other.what}", which is not on the PATH there', (other.seen,))
        user = self.stage.last("USER")
        if user is not None and not re.fullmatch(r"\d+(:\d+)?", user.value):
            return Obstacle(f"the user {user.value} is not in that image", (self.facts.seen(user, "names it"),))
        owned = next((i for i in self.stage.body if (f := i.flag("chown")) is not None and "node" in (f.value or "")), None)
        if owned is not None:
            return Obstacle("the user node is not in that image", (self.facts.seen(owned, "names it"),))
        if "/home/node" in self.facts.document.source.text:
            return Obstacle("/home/node is not in that image", (here,))
        named = (s for s in self.facts.services if s.user is not None and not re.fullmatch(r"\d+(:\d+)?", s.user))
        if (service := next(named, None)) is not None:
            return Obstacle(f"service {service.name} runs as {service.user}, who may not be in that image", (here,))
        command, entry = self.stage.last("CMD"), self.stage.last("ENTRYPOINT")
        words = command.exec_form if command is not None else None
        if entry is not None or not words or words[0] != "node":
            return Obstacle("the image does not simply start node", (here,))
        check = self.stage.last("HEALTHCHECK")
        if check is not None and check.value.strip().upper() != "NONE":
            return Obstacle("node is not on the PATH of a health check there", (self.facts.seen(check, "is the health check"),))
        return distroless(f"nodejs{major}")

    def _carry_over(self, fates: dict[int, Fate]) -> None:
        """COPYs to places outside of the working directory go along as they are."""
        for copy in self.facts.copies(self.stage):
            inside = any(r.startswith((self.workdir or "/").rstrip("/") + "/") or r == self.workdir for r in copy.roots)
            if not inside:
                fates[copy.instruction.index] = Fate.RUN

    def _deps_stage(self, prefix: list[Instruction], install: _Install) -> Iterator[Line]:
        """A stage that installs the production dependencies alone, from the same manifests, on the builder's image."""
        flags = "".join(f"--{f.name}={f.value} " for f in self.stage.base.flags)
        yield Line("", Aspect.BASE, ())
        name = f"{flags}{self.stage.image} AS {self.deps}"
        yield Line(f"FROM {name}", Aspect.BASE, (name,))
        for instruction in prefix:
            if instruction.keyword in ("WORKDIR", "ENV", "ARG", "COPY", "ADD", "RUN", "SHELL", "USER"):
                aspect, own = entries(self.facts, instruction)
                yield Line(self.document.raw(instruction), aspect, own)
        command = install.placed.command
        option = "--production" if command.name == "yarn" else "--omit=dev"
        flags = "".join(f"--{f.name}={f.value} " for f in install.run.flags)
        told = any(re.match(r"--(omit|production|only|prod)\b", arg) for arg in command.args)
        text = str(command) if told else f"{command} {option}"
        yield Line(f"RUN {flags}{text}", Aspect.COMMANDS, commands_in(text))

    def _files(self, outputs: dict[str, Evidence]) -> Iterator[tuple[str, Line]]:
        """The files and folders of the context that the application may read: all but what only the build takes."""
        base = (self.workdir or "/").rstrip("/")
        seen: set[str] = set()
        for copy in self.facts.copies(self.stage):
            singles: list[str] = []
            for source, container in self._entries(copy):
                if (
                    container in seen
                    or not container.startswith(base + "/")
                    or container[len(base) + 1 :].partition("/")[0] in outputs
                ):
                    continue
                seen.add(container)
                if self.facts.context.is_folder(source) or posixpath.dirname(container) != base:
                    shown = f"./{container[len(base) + 1 :]}"
                    yield (
                        container,
                        from_context([source], shown + ("/" if self.facts.context.is_folder(source) else ""), copy.flags),
                    )
                else:
                    singles.append(source)
            if singles:
                yield base, from_context(singles, "./", copy.flags)

    def _lost_entry(self, outputs: dict[str, Evidence]) -> Obstacle | None:
        """A source that is started as it is, and would be left out."""
        base = (self.workdir or "/").rstrip("/") + "/"
        kept = {container for container, _ in self._files(outputs)}
        for started in self.app.started:
            what = started.what or ""
            if started.how is not How.NODE or not what.startswith(base):
                continue
            first = what[len(base) :].partition("/")[0]
            if (
                first not in {out.partition("/")[0] for out in outputs}
                and base + first not in kept
                and base.rstrip("/") not in kept
            ):
                return Obstacle(f"{what[len(base) :]} is started as it stands, and is not among what is built", (started.seen,))
            if self.application.source(what) is not None and _SOURCE.search(what):
                return Obstacle(f"{what[len(base) :]} is started as it stands: its sources are needed", (started.seen,))
        return None

    def _is_named(self, source: str) -> bool:
        """Whether what is started, or a source, names a file that would otherwise be left out."""
        name = posixpath.basename(source)
        stem = name.partition(".")[0]  # empty for `.dockerignore` and its like, which nothing starts
        if stem and any(stem in word for started in self.app.started for word in started.words[1:]):
            return True
        return any(name in (self.facts.context.read(path) or "") for path, _ in self.app.sources if path != source)

    def _entries(self, copy: Copy) -> Iterator[tuple[str, str]]:
        for placement in copy.placements or ():
            if not placement.is_folder:
                if not self._is_left_out(placement.source):
                    yield placement.source, placement.path
                continue
            for name in self.facts.context.names(placement.source):
                source = posixpath.join(placement.source, name)
                if not self._is_left_out(source):
                    yield source, posixpath.join(placement.path, name)

    def _is_left_out(self, source: str) -> bool:
        """Whether a file or folder serves the build alone, or is no part of the application."""
        if "node_modules" in source.split("/") or posixpath.basename(source).startswith("prisma.config"):
            return "node_modules" in source.split("/")
        return (_BUILD_INPUTS.search(source) is not None or self._is_source(source)) and not self._is_named(source)

    def _is_source(self, source: str) -> bool:
        """Whether a file, or all that a folder holds, is compiled and not read at run time."""
        if not self.facts.context.is_folder(source):
            return _SOURCE.search(source) is not None
        return all(_SOURCE.search(file) for file in self.facts.context.walk(source))


def _names(placed: Placed) -> list[str]:
    """The packages that an npm or Yarn install names itself."""
    plain = [arg for arg in placed.command.args if not arg.startswith("-")]
    return plain[1:]
