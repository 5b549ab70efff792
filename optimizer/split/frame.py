"""The frame of a split: which instructions stay with the builder, which go to the runtime stage, and the edits that do it.

A strategy gives every instruction of the old stage a fate and says what is copied over; everything that the old stage promised
is replayed here, in one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from optimizer.contract import entries
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.commands import apt_install, is_apt
from optimizer.facts.copies import ARCHIVE, AWKWARD
from optimizer.facts.manifests import Application
from optimizer.facts.packages import recommended
from optimizer.layers import apt_layer, commands_in
from optimizer.rewrite import Aspect, Change, Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.rewrite import Evidence

# What an image promises whoever runs it, and no RUN reads.
PROMISES = frozenset({"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "STOPSIGNAL", "VOLUME"})
# What no file tells of a split whose runtime image still has a shell.
USED_BY_HAND = ("nobody uses in the image what only the builder has (docker exec, tests, a debugger)",)
BUILDER = "build"
_STEP = re.compile(r"(\s|#.*\n)*(COPY|ADD|RUN)\b", re.IGNORECASE)
_SETTING = re.compile(r"(\s|#.*\n)*(WORKDIR|ENV|ARG)\b", re.IGNORECASE)

_REFERENCE = re.compile(r"\$\{?(\w+)")


class Fate(Enum):
    """Where an instruction of the old stage goes."""

    BUILD = "builder"
    RUN = "runtime"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction of the runtime stage, or of a stage in between, that is new: its text, and where the contract sees it."""

    text: str
    aspect: Aspect
    entries: tuple[str, ...]


@dataclass
class Plan:
    """A split that a strategy proposes.

    `runtime` is the base of the new stage. `fates` has one entry for every instruction of the old stage but FROM. `first` are
    new lines behind the working directory, `between` the text lines of a further stage in front of the runtime stage with
    their contract entries, `instead` what a moved instruction becomes. `edits` and `changes` concern what stays in the
    builder. `decided` is the question of the decision tree that settled the base, `implies` the aspects of the image that
    change with it; `only_proven`: what is not known of it takes the image down, so that it is written with proof alone.
    """

    runtime: str
    fates: Mapping[int, Fate]
    summary: str
    decided: str
    why: str
    first: list[Line] = field(default_factory=list)
    between: list[Line] = field(default_factory=list)
    instead: dict[int, Line] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    caveats: tuple[str, ...] = ()
    implies: frozenset[Aspect] = frozenset()
    only_proven: bool = False


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a stage is not split, with the lines; `is_silent`: nobody would expect it to be."""

    reason: str
    evidence: tuple[Evidence, ...] = ()
    is_silent: bool = False


class Strategy:
    """What the strategies have in common: the stage to split, and what is known of it."""

    def __init__(self, document: Document, facts: Facts, stage: Stage) -> None:
        self.document = document
        self.facts = facts
        self.stage = stage
        self.builder = free_name(document, BUILDER)
        self.app = facts.application(stage)
        self.application = Application(facts, stage.instructions[-1], including=True)
        self.workdir = facts.end_state(stage).workdir

    @property
    def runs(self) -> tuple[Instruction, ...]:
        """The RUNs of the stage."""
        return tuple(i for i in self.stage.body if i.keyword == "RUN")

    def commands(self) -> Iterator[tuple[Instruction, Placed]]:
        """The commands of the RUNs that can be read."""
        for run in self.runs:
            yield from ((run, placed) for placed in self.facts.placed(run) or ())

    def installed(self) -> dict[str, Evidence]:
        """The Debian packages that RUNs install by name, each with its line."""
        found: dict[str, Evidence] = {}
        for run, placed in self.commands():
            install = apt_install(placed.command) if is_apt(placed.command, "install") else None
            for name in install.packages if install is not None else ():
                found.setdefault(name, self.facts.seen_command(run, placed.command, f"installs {name}"))
        return found

    def unread(self) -> Obstacle | None:
        """A RUN that cannot be read."""
        run = next((r for r in self.runs if self.facts.placed(r) is None), None)
        return None if run is None else Obstacle("a RUN cannot be read as a shell script", (self.facts.seen(run, "is one"),))

    def odd_copy(self, owners: Iterable[str]) -> Obstacle | None:
        """A copy of the stage that cannot be made again in the runtime stage, where only `owners` are users."""
        names = "|".join(("\\d+", "root", *map(re.escape, owners)))
        for copy in self.application.copies:
            here = self.facts.seen(copy.instruction, "copies it")
            if copy.placements is None:
                return Obstacle(f"what the copies bring is not known: {copy.unknown}", (here,))
            if copy.instruction.keyword == "ADD" and any(ARCHIVE.search(source) for source in copy.sources):
                return Obstacle("an archive is unpacked into the image", (here,))
            owner = copy.instruction.flag("chown")
            if owner is not None and not re.fullmatch(f"({names})(:({names}))?", owner.value or ""):
                return Obstacle("the owner of a copy is a user that the runtime image would not have", (here,))
            if any(AWKWARD.search(placement.source) for placement in copy.placements):
                return Obstacle("a file that is copied has a name with blanks or wildcards", (here,))
        return None

    def cross_built(self) -> Obstacle | None:
        """A builder that runs on another platform than the image."""
        platform = self.stage.base.flag("platform")
        if platform is None or "$" not in (platform.value or ""):
            return None
        return Obstacle("the builder is for another platform than the image", (self.facts.seen(self.stage.base, "is it"),))

    def linked(self) -> Check | None:
        """That no link among the sources leads to something that is left out, where there is one."""
        files = (f for copy in self.application.copies for f in self.facts.files_of(copy))
        link = next((f for f in files if self.facts.context.kind(f) == "link"), None)
        if link is None:
            return None
        claim = "no link of the sources leads to what the program reads"
        return Check(claim, holds=None, evidence=(self.facts.seen_in(link, "is a link"),))

    def _drawn_with(self, packages: Iterable[str]) -> frozenset[str]:
        """Fonts and certificates that packages of the old stage brought as recommended ones: they come along by name."""
        base = self.facts.image(self.stage)
        lost: set[str] = set()
        for _, placed in self.commands():
            install = apt_install(placed.command)
            if install is not None and not install.skips_recommends:
                for name in {*install.packages} & {*packages}:
                    lost |= recommended(name, base.release if base is not None else None) or frozenset()
        return frozenset(name for name in lost if name.startswith("fonts-") or name == "ca-certificates")

    def apt_line(self, packages: Iterable[str]) -> Line:
        """A RUN that installs Debian packages in the runtime stage."""
        names = frozenset(packages)
        text = apt_layer(self.facts, names | self._drawn_with(names))
        plain = text.removeprefix("RUN ").replace(f"{self.document.escape}{self.document.source.newline}", "\n")
        return Line(text, Aspect.COMMANDS, commands_in(plain))


def writes_a_file(command: Command) -> bool:
    """Whether a command redirects what it says into a file."""
    return any(redirect.is_to_a_file for redirect in command.redirects)


def obstacle(document: Document, facts: Facts, stage: Stage) -> Obstacle | None:
    """What stands against splitting `stage` whatever its language, if anything."""
    here = facts.seen(stage.base, "is the stage")
    if stage.parent is not None or stage is not document.stages[-1]:
        return Obstacle("the stage is one of several already", is_silent=True)
    if any(stage in other.ancestry for other in document.stages if other is not stage):
        return Obstacle("another stage builds on it", (here,))
    copied = next((i for i in stage.body if i.flag("from") is not None or any("from" in m.options for m in i.mounts)), None)
    if copied is not None:
        return Obstacle("it takes files from another stage or image", is_silent=True)
    if "$" in stage.image or "@" in stage.image:
        return Obstacle("a build argument or a digest decides which image it starts from", (here,))
    if trigger := next((i for i in stage.body if i.keyword == "ONBUILD"), None):
        return Obstacle("it is a base for other images: it has triggers", (facts.seen(trigger, "is one"),))
    return None


def edits(document: Document, facts: Facts, stage: Stage, plan: Plan) -> tuple[tuple[Edit, ...], tuple[Change, ...]]:
    """The edits that carry out `plan`, and what they change in the contract."""
    renamed, base_change = _renamed(document, stage, plan)
    body, changes = _body(document, facts, stage, plan)
    state = facts.end_state(stage)
    has_workdir = any(i.keyword == "WORKDIR" and plan.fates[i.index] is not Fate.BUILD for i in stage.body)
    head = [*plan.first]
    if not has_workdir and state.workdir not in (None, "/"):
        head.insert(0, Line(f"WORKDIR {state.workdir}", Aspect.WORKDIR, (str(state.workdir),)))
    changes += [Change(line.aspect, added=line.entries) for line in (*plan.between, *head)]
    start = _behind_settings(body)
    name = f" AS {stage.name}" if stage.name else ""
    lines = [
        *(line.text for line in plan.between),
        "",
        f"FROM {_platform(stage)}{plan.runtime}{name}",
        *body[:start],
        *(line.text for line in head),
        *body[start:],
    ]
    if document.raw(stage.base).startswith("from"):
        own = {*body}
        lines = [line if line in own else _lowered(line) for line in lines]
    moved = _moved(document, stage, plan, document.source.newline.join(lines))
    return (*plan.edits, renamed, *moved), (*plan.changes, base_change, *changes)


def _lowered(line: str) -> str:
    """An instruction with its keyword in small letters, as its author writes them."""
    head, blank, rest = line.partition(" ")
    return head.lower() + blank + rest


def _renamed(document: Document, stage: Stage, plan: Plan) -> tuple[Edit, Change]:
    """The old stage as the builder: it gets a name, or hands its own on to the runtime stage."""
    image, last = stage.base.words[0], stage.base.words[-1]
    keyword = "as" if stage.base.value.find(" as ") >= 0 or document.raw(stage.base).startswith("from") else "AS"
    named = f" {keyword} {free_name(document, BUILDER)}"
    flags = "".join(f"--{f.name}={f.value} " for f in stage.base.flags)
    name = f" AS {stage.name}" if stage.name else ""
    added = (f"{flags}{stage.image}{named}", f"{_platform(stage)}{plan.runtime}{name}")
    change = Change(Aspect.BASE, removed=(f"{flags}{' '.join(stage.base.value.split())}",), added=added)
    return Edit(Span(image.span.end, last.span.end), named), change


def _body(document: Document, facts: Facts, stage: Stage, plan: Plan) -> tuple[list[str], list[Change]]:
    """The instructions of the runtime stage that come from the old one, and how the contract sees the move."""
    body: list[str] = []
    changes: list[Change] = []
    for instruction in stage.body:
        fate = plan.fates[instruction.index]
        if fate is Fate.BUILD:
            continue
        aspect, own = entries(facts, instruction)
        if fate is Fate.BOTH:
            body.append(document.raw(instruction))
            changes.append(Change(aspect, added=own))
            continue
        block, new = document.block(instruction), plan.instead.get(instruction.index)
        body.append(block if new is None else block.removesuffix(document.raw(instruction)) + new.text)
        changes.append(Change(aspect, removed=own, added=own if new is None else new.entries))
    return body, changes


def _moved(document: Document, stage: Stage, plan: Plan, text: str) -> list[Edit]:
    """Take out what moves, and put `text` behind what stays; free-standing comments at the end stay where they are."""
    source = document.source
    kept = [i for i in stage.instructions if i is stage.base or plan.fates[i.index] is not Fate.RUN][-1]
    gone = [i for i in stage.body if plan.fates[i.index] is Fate.RUN]
    first = source.line_index(kept.span.end) + 1
    taken = {n for i in gone for n in range(source.line_index(i.whole.start), source.line_index(i.whole.end) + 1)}
    free = [n for n in range(first, len(source.line_starts)) if n not in taken and source.line(n).strip()]
    comments = "".join(source.newline + source.line(n).rstrip("\r\n") for n in free)
    begin = source.line_end(first - 1)
    lead = source.newline if begin == len(source.text) and not source.text.endswith("\n") else ""
    lead += comments + source.newline if comments else ""
    gap = "" if text.startswith(source.newline) else source.newline
    tail = Edit(Span(begin, len(source.text)), f"{lead}{gap}{text}{source.newline}")
    return [*(document.delete(i) for i in gone if i.index < kept.index), tail]


def _behind_settings(body: list[str]) -> int:
    """Where new lines go: behind the settings that stand in front of everything that copies, runs or starts."""
    stop = next((n for n, text in enumerate(body) if _STEP.match(text)), len(body))
    return max((n + 1 for n, text in enumerate(body[:stop]) if _SETTING.match(text)), default=0)


def _platform(stage: Stage) -> str:
    flag = stage.base.flag("platform")
    if flag is None or "BUILDPLATFORM" in (flag.value or ""):
        return ""
    return f"--platform={flag.value} "


def free_name(document: Document, wanted: str) -> str:
    """`wanted`, or with a number behind it where a stage has that name."""
    names = {stage.name.lower() for stage in document.stages if stage.name}
    others = ["builder", "compile"] if wanted == BUILDER else []
    numbered = [f"{wanted}-{n}" for n in range(2, 100)]
    return next(name for name in (wanted, *others, *numbered) if name not in names)


def default_fates(stage: Stage, *, build_only: Iterable[str] = ()) -> dict[int, Fate]:
    """The fates of what every ecosystem has in common: promises go to the runtime stage; ENV and WORKDIR to both, or to the
    runtime stage alone where no RUN comes behind them; ARGs go along where something there refers to them; COPY and RUN stay
    with the builder.

    `build_only` are variables that only the build reads.
    """
    only = frozenset(build_only)
    fates: dict[int, Fate] = {}
    wanted: set[str] = set()  # the variables that the runtime stage refers to
    for instruction in reversed(stage.body):
        rest = [i for i in stage.body if i.index > instruction.index]
        built = any(i.keyword in ("RUN", "COPY", "ADD") for i in rest)
        names = {pair.name for pair in instruction.pairs}
        if instruction.keyword in PROMISES:
            fate = Fate.RUN
        elif instruction.keyword == "ENV":
            serves = not names <= only or bool(names & wanted)
            fate = (Fate.BOTH if built else Fate.RUN) if serves else Fate.BUILD
        elif instruction.keyword == "WORKDIR":
            is_last = not any(i.keyword == "WORKDIR" for i in rest)
            fate = (Fate.BOTH if built else Fate.RUN) if is_last and instruction.value.startswith("/") else Fate.BUILD
        elif instruction.keyword == "ARG":
            fate = Fate.BOTH if names & wanted else Fate.BUILD
        elif instruction.keyword == "SHELL":
            fate = Fate.BOTH if any(_is_shell_form(i) for i in rest) else Fate.BUILD
        elif instruction.keyword == "USER":
            fate = Fate.BOTH if built else Fate.RUN
        else:
            fate = Fate.BUILD
        if fate is not Fate.BUILD:
            wanted |= set(_REFERENCE.findall(instruction.value))
        fates[instruction.index] = fate
    return fates


def _is_shell_form(instruction: Instruction) -> bool:
    """Whether an instruction starts something through the shell at run time."""
    is_check = instruction.keyword == "HEALTHCHECK" and "[" not in instruction.value
    return is_check or (instruction.keyword in ("CMD", "ENTRYPOINT") and instruction.exec_form is None)


def from_stage(stage: str, path: str, destination: str) -> Line:
    """A COPY of `path` out of another stage."""
    words = (f"--from={stage}", path, destination)
    return Line(f"COPY {' '.join(words)}", Aspect.COPIES, (f"COPY {' '.join(words)}",))


def from_context(sources: Iterable[str], destination: str, flags: Iterable[str] = ()) -> Line:
    """A COPY out of the build context."""
    words = (*flags, *sources, destination)
    return Line(f"COPY {' '.join(words)}", Aspect.COPIES, (f"COPY {' '.join(words)}",))
