"""Python: compile into a virtual environment in the builder; ship it, and the run-time libraries, on the slim base."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.facts.commands import apt_install, is_apt
from optimizer.facts.images import image, variant
from optimizer.facts.manifests import Application
from optimizer.facts.packages import ALWAYS, in_release, is_build_only, python_package, runtime_libraries
from optimizer.facts.python_packages import compiled, installed, is_install, python_version, requirements
from optimizer.facts.slim import SlimNeeds
from optimizer.facts.state import is_root
from optimizer.rewrite import Aspect, Change, Check, Safety
from optimizer.split.frame import (
    USED_BY_HAND,
    Fate,
    Line,
    Obstacle,
    Plan,
    Strategy,
    default_fates,
    from_stage,
    writes_a_file,
)

if TYPE_CHECKING:
    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.python_packages import Requirement
    from optimizer.rewrite import Evidence

BASES = frozenset({"python"})
BEST = Safety.UNSAFE
UNPROVEN = USED_BY_HAND
ENVIRONMENT = "/opt/venv"
# Commands beside the install that make nothing which the running image would miss.
_HARMLESS = frozenset({"cd", "echo", "rm", "set", "true", "", "export"})
# Headers of Debian's own Python, which is not the one that runs.
_SYSTEM_PYTHON = frozenset({"python3-dev", "python-dev", "python-dev-is-python3", "libpython3-dev", "python3-all-dev"})
_SYSTEM_PATHS = re.compile(r"/usr/local/(bin/(python|pip|gunicorn|uvicorn|flask|celery)|lib/python)")
_APART = re.compile(r"(^|\s)(--user|--target|-t|--prefix|--root|--system)(\s|=|$)")


def plan(document: Document, facts: Facts, stage: Stage) -> Plan | Obstacle:
    """How to split a stage that compiles Python packages or installs tools to do so."""
    return _Python(document, facts, stage).plan()


class _Python(Strategy):
    def __init__(self, document: Document, facts: Facts, stage: Stage) -> None:
        super().__init__(document, facts, stage)
        base = facts.image(stage)
        assert base is not None
        self.base = base

    def plan(self) -> Plan | Obstacle:
        installs = self._installs()
        tools = self._build_tools()
        compiled_ones = self._compiled(installs)
        if not installs or not (tools or compiled_ones):
            return Obstacle("nothing is compiled: the slim base alone is the better answer", is_silent=True)
        reference, reason = variant(self.stage.image, "slim") if self.base.kind == "full" else (self.stage.image, "")
        if not reference or image(reference) is None:
            return Obstacle(reason, (self.facts.seen(self.stage.base, "is the base"),))
        last = installs[-1][0]
        prefix = [i for i in self.stage.body if i.index <= last.index]
        if (odd := self._odd(prefix, installs)) is not None:
            return odd
        return self._assemble(reference, installs, prefix, tools, compiled_ones)

    # ---------------------------------------------------------------- reading the stage

    def _installs(self) -> list[tuple[Instruction, Placed]]:
        return [(run, placed) for run, placed in self.commands() if is_install(placed)]

    def _build_tools(self) -> dict[str, Evidence]:
        """The Debian packages that are installed to compile with."""
        return {name: seen for name, seen in self.installed().items() if is_build_only(name)}

    def _asked(self, installs: list[tuple[Instruction, Placed]]) -> list[tuple[Requirement, ...] | None]:
        return [requirements(Application(self.facts, run), placed) for run, placed in installs]

    def _compiled(self, installs: list[tuple[Instruction, Placed]]) -> list[Requirement]:
        """The requirements that are compiled: no wheel exists for this Python."""
        python = python_version(self.base)
        return [r for found in self._asked(installs) for r, verdict in compiled(found or (), python) if verdict is False]

    # ---------------------------------------------------------------- what stands against it

    def _odd(self, prefix: list[Instruction], installs: list[tuple[Instruction, Placed]]) -> Obstacle | None:
        for run, placed in installs:
            seen = self.facts.seen_command(run, placed.command, "installs")
            if placed.command.name not in ("pip", "pip3", "python", "python3") or _APART.search(str(placed.command)):
                return Obstacle(f"`{placed.command}` chooses by itself where it installs", (seen,))
        for instruction in prefix:
            if instruction.keyword == "USER" and not is_root(instruction.value):
                return Obstacle("the packages are installed as another user", (self.facts.seen(instruction, "changes it"),))
            if instruction.keyword == "RUN" and (odd := self._odd_run(instruction)) is not None:
                return odd
        if (odd := self._odd_apt() or self._odd_shell()) is not None:
            return odd
        for instruction in self.stage.body:
            if re.search(r"/usr/local/(bin|lib/python)|/root/\.local|site-packages", self.document.raw(instruction)):
                seen = self.facts.seen(instruction, "names a folder of the system's Python")
                return Obstacle("a path leads into the Python of the image, where the packages would no longer be", (seen,))
        return None

    def _odd_apt(self) -> Obstacle | None:
        """An install of Debian packages that cannot be said again by their names."""
        for run, placed in self.commands():
            install = apt_install(placed.command)
            if install is None:
                continue
            told = re.search(r"\s(-t|--target-release|-o|--option|-c)\b|\.deb\b|[a-z0-9]=\S", str(placed.command))
            if not install.is_complete or told is not None:
                seen = self.facts.seen_command(run, placed.command, "installs")
                return Obstacle("apt installs packages that are not simply named", (seen,))
        return None

    def _odd_shell(self) -> Obstacle | None:
        """A login shell, which sets a PATH of its own, or a builder for another platform."""
        login = next(
            (s for s in self.app.started if any(re.fullmatch(r"-[a-z]*l[a-z]*|--login", w) for w in s.words[1:2])), None
        )
        if login is not None and login.words[0].rpartition("/")[2] in ("sh", "bash"):
            return Obstacle("a login shell sets the PATH anew, without the environment's folder", (login.seen,))
        return self.cross_built()

    def _odd_run(self, run: Instruction) -> Obstacle | None:
        placed = self.facts.placed(run)
        if placed is None or not self.facts.is_editable(run):
            return Obstacle("a RUN cannot be read as a shell script", (self.facts.seen(run, "is one"),))
        for item in placed:
            name = item.command.name
            fine = name in _HARMLESS or is_install(item) or is_apt(item.command, "update", "install", "clean", "upgrade")
            fine = fine or (name in ("pip", "pip3") and item.command.args[:1] in (("cache",), ("--version",)))
            if name == "rm" and not re.search(r"/var/(lib/apt|cache)|/tmp|/root/\.cache", str(item.command)):
                fine = False
            if not fine or writes_a_file(item.command) or not item.command.is_unconditional:
                seen = self.facts.seen_command(run, item.command, "comes before the packages are installed")
                return Obstacle(f"`{name}` may make something that the application needs at run time", (seen,))
        return None

    # ---------------------------------------------------------------- putting it together

    def _assemble(
        self,
        reference: str,
        installs: list[tuple[Instruction, Placed]],
        prefix: list[Instruction],
        tools: dict[str, Evidence],
        compiled_ones: list[Requirement],
    ) -> Plan | Obstacle:
        fates = self._fates(prefix)
        what = compiled_ones[0].name if compiled_ones else next(iter(tools))
        result = Plan(
            reference,
            fates,
            f"{what} stays in a builder, with all that compiling takes; run on {reference}",
            f"{what} is compiled, or installed to compile with",
            "Compilers and headers serve the build alone; the packages come over in a virtual environment at the same path.",
        )
        first = next(i for i in self.stage.body if i.keyword == "RUN" and any(i is run for run, _ in installs))
        result.edits.append(self.document.insert_before(self._anchor(prefix, first), self._environment_lines()))
        path = f"PATH={ENVIRONMENT}/bin:$PATH"

        result.changes.append(Change(Aspect.ENV, added=(path,)))
        result.changes.append(Change(Aspect.COMMANDS, added=(f"python -m venv {ENVIRONMENT}",)))
        rest = [i for i in self.stage.body if i.index > prefix[-1].index and i.keyword == "RUN"]
        looking = SlimNeeds(self.facts, self.stage, self.base, rest)
        for found in self._asked(installs):
            looking.bring(found, self.installed())
        needs = looking.look()
        packages = dict(needs.packages)
        unknown = self._libraries(packages, tools, installs)
        result.checks += [c for c in needs.checks if c.holds is not True]
        result.checks.append(self.facts.mention(_SYSTEM_PATHS, "the image's own Python by its path"))
        result.checks += unknown
        if (linked := self._unknown_links(installs)) is not None:
            result.checks.append(linked)
            result.only_proven = True
        if packages:
            result.first.append(self.apt_line(packages))
        result.first.append(from_stage(self.builder, ENVIRONMENT, ENVIRONMENT))
        result.first.append(Line(f"ENV {path}", Aspect.ENV, (path,)))
        result.evidence += [r.seen for r in compiled_ones[:2]] or [next(iter(tools.values()))]
        result.evidence += [packages[n] for n in sorted(packages)][:3]
        return result

    def _anchor(self, prefix: list[Instruction], run: Instruction) -> Instruction:
        """The instruction in front of which the environment is made: the manifests' COPY directly above the install."""
        anchor = run
        for instruction in reversed([i for i in prefix if i.index < run.index]):
            if instruction.keyword not in ("COPY", "ADD"):
                break
            anchor = instruction
        return anchor

    def _environment_lines(self) -> str:
        newline = self.document.source.newline
        return f"RUN python -m venv {ENVIRONMENT}{newline}ENV PATH={ENVIRONMENT}/bin:$PATH"

    def _fates(self, prefix: list[Instruction]) -> dict[int, Fate]:
        """Everything up to the install stays with the builder, what is behind it goes to the runtime stage."""
        ahead = {i.index for i in prefix}
        fates = default_fates(self.stage)
        for instruction in self.stage.body:
            if instruction.index not in ahead:
                fates[instruction.index] = Fate.RUN
            elif instruction.keyword in ("COPY", "ADD"):
                fates[instruction.index] = Fate.BOTH if self._is_more(instruction) else Fate.BUILD
            elif instruction.keyword in ("ENV", "WORKDIR", "ARG", "SHELL"):
                fates[instruction.index] = Fate.BOTH
        return fates

    def _is_more(self, instruction: Instruction) -> bool:
        """Whether a COPY in front of the install brings what the application may read, and no later COPY brings again."""
        copies = self.facts.copies(self.stage)
        copy = next((c for c in copies if c.instruction is instruction), None)
        if copy is None or copy.placements is None:
            return True
        later = [c for c in copies if c.instruction.index > instruction.index]
        files = [(f, copy.container_path(f)) for f in self.facts.files_of(copy)]
        return not all(any(c.brings(f) and c.container_path(f) == path for c in later) for f, path in files)

    def _libraries(
        self, packages: dict[str, Evidence], tools: dict[str, Evidence], installs: list[tuple[Instruction, Placed]]
    ) -> list[Check]:
        """Add the libraries that stand behind `-dev` packages, and those that compiled packages link; what is unknown."""
        unknown: list[Check] = []
        compiled_ones = (python_package(r.name) for r in self._compiled(installs))
        linked = {name for package in compiled_ones if package is not None and package.libraries for name in package.build}
        for name, seen in self.installed().items():
            if name not in tools:
                packages.setdefault(name, seen)
                continue
            is_header = name.endswith("-dev") and name not in linked | _SYSTEM_PYTHON
            libraries = runtime_libraries(name, self.base.release) if is_header else ()
            if libraries is None:
                unknown.append(Check(f"which library stands behind {name} is known", holds=None, evidence=(seen,)))
            for library in libraries or ():
                if library not in ALWAYS:
                    packages.setdefault(library, seen)
        for found in self._asked(installs):
            unknown += self._linked(packages, found)
        return unknown

    def _unknown_links(self, installs: list[tuple[Instruction, Placed]]) -> Check | None:
        """A package that is compiled in the full image, or may be, and of which no table says what it links there: the slim
        image may lack that, and the program then does not start. None without one."""
        python = python_version(self.base)
        for found in self._asked(installs):
            for asked, verdict in compiled(found or (), python):
                package = python_package(asked.name)
                is_known = verdict is False and package is not None and package.kind == "source" and not package.adapts
                if not is_known:
                    name = "a package of the sources or of a repository" if asked.name == "?" else asked.name
                    claim = f"what {name} links in the full image, where it is compiled, is in the slim one"
                    return Check(claim, holds=None, evidence=(asked.seen,))
        return None

    def _linked(self, packages: dict[str, Evidence], found: tuple[Requirement, ...] | None) -> list[Check]:
        """Add the libraries that the packages of one install link at run time; what is unknown of them."""
        if found is None:
            return [Check("the Python packages that are installed are known", holds=None)]
        everything = installed(found)
        unknown: list[Check] = []
        for package in everything.packages:
            for named in package.libraries:
                library = in_release(named, self.base.release)
                seen = everything.seen(package.name)[:1]
                if library is None:
                    unknown.append(Check(f"what {named} is called on {self.base.release} is known", holds=None, evidence=seen))
                elif seen:
                    packages.setdefault(library, seen[0])
        unknown += [
            Check(f"{name} links no library that is missing (not in our table)", holds=None) for name in everything.unknown
        ]
        unknown += [
            Check("a package of the sources links no library", holds=None, evidence=(requirement.seen,))
            for requirement in found
            if requirement.origin != "index"
        ]
        return unknown
