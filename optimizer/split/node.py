"""Node: install and build in the builder; ship the production dependencies, the output of the build and what is served."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.contract import entries, exec_entry
from optimizer.dockerfile.shell import read_script
from optimizer.facts.commands import option_value
from optimizer.facts.images import image, variant
from optimizer.facts.manifests import Application, Project
from optimizer.facts.node import is_project_install, parse_json
from optimizer.facts.node_packages import development_in_scripts, development_use
from optimizer.facts.packages import is_build_only, is_builder
from optimizer.facts.slim import SlimNeeds
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Check, Safety
from optimizer.split.frame import (
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
UNPROVEN = ("nobody uses in the image what only the builder has (docker exec, tests, a debugger)",)
# Builders whose output folder is known without reading their settings, by the words that start them.
_OUTPUTS = {
    "next build": ".next",
    "react-scripts build": "build",
    "nest build": "dist",
    "vite build": "dist",
    "remix build": "build",
}
_BUILD_INPUTS = re.compile(
    r"(^|/)(tsconfig[^/]*\.json|[^/]*\.tsbuildinfo|package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|(vite|vitest|webpack|rollup|babel|jest|tailwind|postcss|eslint|prettier|tsup|esbuild|commitlint|playwright|cypress|karma)[^/]*\.config\.[cm]?[jt]s"
    r"|Dockerfile[^/]*|[^/]*\.Dockerfile|\.dockerignore|\.git[^/]*|\.eslint[^/]*|\.prettier[^/]*|\.editorconfig|README[^/]*|LICENSE[^/]*"
    r"|[^/]*\.md|(docker-)?compose[^/]*\.ya?ml|jest\.[^/]*|\.github|\.vscode|\.idea|node_modules|tests?|__tests__|spec|e2e|coverage)$",
    re.IGNORECASE,
)
# What is installed for all projects to install or build with.
_BUILD_TOOLS = re.compile(r"(npm|yarn|pnpm|typescript|@nestjs/cli|@angular/cli)(@|$)")
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
        package = parse_json(last.project.read("package.json")) or {}
        if package.get("workspaces"):
            return Obstacle("the project has workspaces: which of them run is not known", (here,))
        return last

    def _outputs(self, install: _Install) -> dict[str, Evidence] | Obstacle:
        """The folders that the build makes, below the working directory, each with the line that says so."""
        found: dict[str, Evidence] = {}
        for run, placed in self.commands():
            command = placed.command
            if command.name not in ("npm", "yarn", "npx", "tsc", "pnpm") or is_project_install(placed):
                continue
            seen = self.facts.seen_command(run, command, "builds")
            text = self._script_of(install, command.name, command.args) if command.name != "npx" else " ".join(command.args)
            text = str(command) if command.name == "tsc" else text
            if text is None:
                continue
            folders = self._folders(install, text)
            if folders is None:
                return Obstacle(f"what `{text[:50]}` writes is not known", (seen,))
            found |= dict.fromkeys(folders, seen)
        return found

    def _script_of(self, install: _Install, tool: str, args: tuple[str, ...]) -> str | None:
        """The script of package.json that a command runs; None for another command."""
        plain = [a for a in args if not a.startswith("-")]
        if not plain or (tool == "npm" and plain[0] not in ("run", "run-script")):
            return None
        name = plain[1] if plain[0] in ("run", "run-script") and len(plain) > 1 else plain[0]
        scripts = (parse_json(install.project.read("package.json")) or {}).get("scripts")
        text = scripts.get(name) if isinstance(scripts, dict) else None
        hooks = [scripts.get(f"{w}{name}") for w in ("pre", "post")] if isinstance(scripts, dict) else []
        return None if text is None else " && ".join(str(t) for t in (hooks[0], text, hooks[1]) if t) if hooks else str(text)

    def _folders(self, install: _Install, text: str) -> list[str] | None:
        """The folders that the commands of a script write; None where one of them is not known."""
        script = read_script(text)
        if script is None:
            return None
        found: list[str] = []
        for command in script.commands:
            words = [command.name or "", *command.args]
            words = words[1:] if words[0] in ("npx", "cross-env") else words
            words = [w for w in words if not re.match(r"[A-Z_]+=", w)]
            head = " ".join(words[:2])
            if words[0] in (
                "rimraf",
                "rm",
                "mkdir",
                "echo",
                "eslint",
                "prettier",
                "true",
                "cp",
                "copyfiles",
                "cpx",
                "tsc-alias",
            ):
                continue
            if words[0] in ("npm", "yarn", "pnpm") and "run" in words:
                nested = self._script_of(install, words[0], tuple(words[1:]))
                inner = self._folders(install, nested) if nested is not None else None
                if inner is None:
                    return None
                found += inner
            elif words[0] == "tsc":
                out = self._typescript(install, words)
                if out is None:
                    return None
                found += [out] if out else []
            elif head in _OUTPUTS:
                chosen = option_value(tuple(words[2:]), "-o", "--outDir") if words[0] == "vite" else None
                if chosen is None and words[0] == "vite" and self._sets_output(install, "vite.config"):
                    return None
                found.append(chosen or _OUTPUTS[head])
            else:
                return None
        return found

    def _sets_output(self, install: _Install, stem: str) -> bool:
        files = (f"{stem}.{ending}" for ending in ("ts", "js", "mjs", "mts"))
        return any("outDir" in (install.project.read(file) or "") for file in files)

    def _typescript(self, install: _Install, words: list[str]) -> str | None:
        """The output folder of `tsc`; "" where it writes nothing, None where that is not known."""
        args = tuple(words[1:])
        if "--noEmit" in args:
            return ""
        if (out := option_value(args, "--outDir", "--outDir")) is not None and "--outDir" in args:
            return posixpath.normpath(out)
        plain = [a for a in args if not a.startswith("-")]
        file = option_value(args, "-p", "--project") or (
            plain[0] if plain and ("-b" in args or "--build" in args) else "tsconfig.json"
        )
        options = self._tsconfig(install, file if file.endswith(".json") else posixpath.join(file, "tsconfig.json"))
        if options is None:
            return None
        if options.get("noEmit") is True:
            return ""
        named = options.get("outDir")
        return posixpath.normpath(named) if isinstance(named, str) and not named.startswith(("..", "/")) else None

    def _tsconfig(self, install: _Install, file: str) -> dict[str, object] | None:
        text = install.project.read(file)
        if text is None:
            return None
        bare = re.sub(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', lambda m: m[1] or "", text, flags=re.DOTALL)
        try:
            table = json.loads(re.sub(r",(\s*[}\]])", r"\1", bare))
        except ValueError:
            return None  # unreadable: the caller says so
        options = table.get("compilerOptions") if isinstance(table, dict) else None
        return options if isinstance(options, dict) else None

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
        needs = SlimNeeds(self.facts, self.stage, base, ()).look() if runtime != self.stage.image else None
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
        if runtime.startswith("gcr.io/"):
            self._started_by_node(result)
        packages = dict(needs.packages) if needs is not None else {}
        own = {n: seen for n, seen in self.installed().items() if not is_build_only(n) and n != "python3"}
        packages |= own
        if packages:
            result.first.append(self.apt_line(packages))
        result.first += [line for _, line in self._files(outputs)]
        result.first.append(
            from_stage(self.deps if outputs else self.builder, f"{install.project.container}/node_modules", "./node_modules")
        )
        outs = [(posixpath.join(install.project.container, out), f"./{out}") for out in outputs]
        result.first += [from_stage(self.builder, path, shown) for path, shown in outs]
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

    def _runtime(self) -> tuple[str, str] | Obstacle:
        """The base of the runtime stage, and the question that settled it."""
        base, choice = self.facts.image(self.stage), self.facts.base_choice
        assert base is not None
        distroless = self._distroless(base)
        if choice == "distroless" or (choice == "auto" and base.release == "trixie" and isinstance(distroless, str)):
            if isinstance(distroless, Obstacle):
                return distroless
            return distroless, "nothing but node is started, and no shell: a distroless image of the same Node does"
        reference, _ = variant(self.stage.image, "slim")
        if reference and image(reference) is not None and base.kind == "full":
            needs = "--base slim" if choice == "slim" else self._why_not_distroless(base, distroless)
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

    def _why_not_distroless(self, base: Image, distroless: str | Obstacle) -> str:
        if isinstance(distroless, Obstacle):
            return f"not distroless, since {distroless.reason}"
        return f"not distroless, which is Debian 13, while this Node is on {base.release or 'another release'}"

    def _distroless(self, base: Image) -> str | Obstacle:
        """The distroless image with the same major version of Node, or why the application needs more than that."""
        major = (base.version or "").partition(".")[0]
        name = f"gcr.io/distroless/nodejs{major}"
        here = self.facts.seen(self.stage.base, "is the base")
        if image(name) is None:
            return Obstacle(f"there is no distroless image of Node {major or base.tag} that is maintained", (here,))
        if self.app.shells:
            return Obstacle("something is started through a shell", self.app.shells[:1])
        other = next((p for p in self.app.programs if p.what not in ("node", "nodejs")), None)
        if other is not None:
            return Obstacle(f'it starts "{other.what}"', (other.seen,))
        user = self.stage.last("USER")
        if user is not None and not re.fullmatch(r"\d+(:\d+)?", user.value):
            return Obstacle(f"the user {user.value} is not in that image", (self.facts.seen(user, "names it"),))
        command, entry = self.stage.last("CMD"), self.stage.last("ENTRYPOINT")
        words = command.exec_form if command is not None else None
        if entry is not None or not words or words[0] != "node":
            return Obstacle("the image does not simply start node", (here,))
        if (check := self.stage.last("HEALTHCHECK")) is not None:
            return Obstacle("node is not on the PATH of a health check there", (self.facts.seen(check, "is the health check"),))
        return f"{name}-debian13"

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
        text = str(command) if option in command.args else f"{command} {option}"
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

    def _entries(self, copy: Copy) -> Iterator[tuple[str, str]]:
        for placement in copy.placements or ():
            if not placement.is_folder:
                if not _BUILD_INPUTS.search(placement.source):
                    yield placement.source, placement.path
                continue
            for name in self.facts.context.names(placement.source):
                source = posixpath.join(placement.source, name)
                if not _BUILD_INPUTS.search(source) and not self._is_source(source):
                    yield source, posixpath.join(placement.path, name)

    def _is_source(self, source: str) -> bool:
        """Whether a file, or all that a folder holds, is compiled and not read at run time."""
        if not self.facts.context.is_folder(source):
            return _SOURCE.search(source) is not None
        return all(_SOURCE.search(file) for file in self.facts.context.walk(source))


def _names(placed: Placed) -> list[str]:
    """The packages that an npm or Yarn install names itself."""
    plain = [arg for arg in placed.command.args if not arg.startswith("-")]
    return plain[1:]
