"""What is known about one document in one build context: computed once, when first asked for, and read by every transform."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.dockerfile.joined import Joined
from optimizer.dockerfile.shell import Script, from_words, read_script
from optimizer.facts import commands as known
from optimizer.facts.cache import CacheModel
from optimizer.facts.copies import Copy, copies
from optimizer.facts.images import Image, image, is_windows
from optimizer.facts.state import State, absolute, after, base_reference, states
from optimizer.rewrite import Check, Evidence, Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.edit import Edit, Span
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.application import AppFacts
    from optimizer.facts.compose import Service
    from optimizer.facts.context import BuildContext

_SHEBANG = re.compile(r"#!\s*/(?:usr/)?bin/(?:env\s+)?(?:ba|da)?sh\b")


class Facts:
    """The facts about `document`, built in `context`.

    `target` names the stage that is built (None: the last), `base_choice` the kind of base image that the user asks for
    ("auto", "keep", "slim", "alpine", "distroless", "scratch").
    """

    def __init__(self, document: Document, context: BuildContext, target: str | None = None, base_choice: str = "auto") -> None:
        self.document = document
        self.context = context
        self._target = target
        self.base_choice = base_choice
        self._applications: dict[int, AppFacts] = {}
        self._copies: dict[int, tuple[Copy, ...]] = {}
        self._scripts: dict[int, tuple[Script, Joined | None] | None] = {}

    def after(self, edits: Iterable[Edit]) -> Facts:
        """The facts about the document after `edits`."""
        return Facts(self.document.edited(edits), self.context, self._target, self.base_choice)

    # ---------------------------------------------------------------- stages

    @cached_property
    def target(self) -> Stage | None:
        """The stage that is built."""
        if not self.document.stages:
            return None
        named = self.document.stage_named(self._target) if self._target else None
        return named or self.document.stages[-1]

    @cached_property
    def shipped(self) -> tuple[Stage, ...]:
        """The stages whose layers are in the final image: the target and those it builds on."""
        return tuple(self.target.ancestry) if self.target else ()

    @cached_property
    def built(self) -> tuple[Stage, ...]:
        """The stages that a build of the target needs, in file order."""
        needed: set[int] = set()
        waiting = list(self.shipped)
        while waiting:
            stage = waiting.pop()
            if stage.index in needed:
                continue
            needed.add(stage.index)
            waiting += list(stage.ancestry)
            waiting += [s for i in stage.body for name in _sources(i) if (s := self.document.stage_named(name))]
        return tuple(stage for stage in self.document.stages if stage.index in needed)

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """The compose services that start the target: those that name it, or that name no stage where it is the last one."""
        return tuple(service for service in self.context.services if self.stage_of_service(service) is self.target)

    def stage_of_service(self, service: Service) -> Stage | None:
        """The stage that a service starts; None where the file has no stage of that name."""
        if service.target is None:
            return self.document.stages[-1] if self.document.stages else None
        return self.document.stage_named(service.target)

    @cached_property
    def starts_something(self) -> bool:
        """Whether the image has a CMD or ENTRYPOINT of its own."""
        return any(i.keyword in ("CMD", "ENTRYPOINT") for stage in self.shipped for i in stage.body)

    def shipped_runs(self) -> tuple[Instruction, ...]:
        """The RUNs whose layers are in the final image and whose shell is one that we read."""
        return tuple(i for i in self.runs if self.document.stage_of(i) in self.shipped)

    @cached_property
    def runs(self) -> tuple[Instruction, ...]:
        """The RUNs of the stages that are built, in stages that are not Windows."""
        return tuple(i for s in self.built if not self.is_windows(s) for i in s.body if i.keyword == "RUN")

    def is_windows(self, stage: Stage) -> bool:
        platform = stage.base.flag("platform")
        reference = self.reference(stage) or list(stage.ancestry)[-1].image
        return is_windows(reference) or (platform is not None and (platform.value or "").startswith("windows"))

    def reference(self, stage: Stage) -> str | None:
        """The image that `stage` starts from in the end, or None where that is unknown."""
        return base_reference(self.document, stage)

    def image(self, stage: Stage) -> Image | None:
        """What is known of that image."""
        reference = self.reference(stage)
        return image(reference) if reference else None

    # ---------------------------------------------------------------- state and files

    @cached_property
    def _states(self) -> dict[int, State]:
        return states(self.document)

    def end_state(self, stage: Stage) -> State:
        """What is in force at the end of `stage`: what its image runs with."""
        last = stage.instructions[-1]
        return after(self.state(last), last)

    def application(self, stage: Stage) -> AppFacts:
        """What the application that `stage` ships really does."""
        if stage.index not in self._applications:
            from optimizer.facts.application import AppFacts

            self._applications[stage.index] = AppFacts(self, stage)
        return self._applications[stage.index]

    def state(self, instruction: Instruction) -> State:
        """What is in force just before `instruction`."""
        return self._states[instruction.index]

    def copies(self, stage: Stage) -> tuple[Copy, ...]:
        """The COPY and ADD instructions of `stage` that take files from the build context."""
        if stage.index not in self._copies:
            self._copies[stage.index] = copies(self, stage)
        return self._copies[stage.index]

    def copies_before(self, instruction: Instruction, *, including: bool = False) -> tuple[Copy, ...]:
        """Those of the instruction's stage and of the stages that it builds on, above the instruction (or it itself, too), in
        file order."""
        stages = reversed(tuple(self.document.stage_of(instruction).ancestry))
        end = instruction.index + including
        return tuple(c for stage in stages for c in self.copies(stage) if c.instruction.index < end)

    def files_of(self, copy: Copy) -> Iterator[str]:
        """The files of the build context that a copy brings."""
        for placement in copy.placements or ():
            if placement.is_folder:
                yield from self.context.walk(placement.source)
            else:
                yield placement.source

    @cached_property
    def cache(self) -> CacheModel:
        """Which instructions run again when a file changes."""
        return CacheModel(self)

    # ---------------------------------------------------------------- commands

    def script(self, run: Instruction) -> Script | None:
        """The commands of a RUN, CMD or ENTRYPOINT, or None where they cannot be read."""
        found = self._read(run)
        return None if found is None else found[0]

    def commands(self, instruction: Instruction) -> tuple[Command, ...]:
        """Those commands; none where they cannot be read, or of another instruction: it answers what is certainly run."""
        script = self.script(instruction) if instruction.keyword in ("RUN", "CMD", "ENTRYPOINT") else None
        return () if script is None else script.commands

    def source_span(self, run: Instruction, span: Span) -> Span:
        """Where in the file a stretch of the instruction's script stands. Raises ValueError for an exec form."""
        found = self._read(run)
        if found is None or found[1] is None:
            raise ValueError("an exec form has no script in the file")
        return found[1].span(span.start, span.end)

    def is_editable(self, run: Instruction) -> bool:
        """Whether the script stands in the file, command for command."""
        found = self._read(run)
        return found is not None and found[1] is not None

    def _read(self, run: Instruction) -> tuple[Script, Joined | None] | None:
        if run.index not in self._scripts:
            self._scripts[run.index] = self._parse(run)
        return self._scripts[run.index]

    def _parse(self, run: Instruction) -> tuple[Script, Joined | None] | None:
        if run.exec_form is not None:
            return from_words(run.exec_form), None
        if not self.state(run).is_posix_shell:
            return None
        joined = run.argument
        if run.heredocs:
            body = self._heredoc_script(run)
            if body is None:
                return None
            joined = body
        script = read_script(joined.text)
        return None if script is None else (script, joined)

    def _heredoc_script(self, run: Instruction) -> Joined | None:
        """The script of a RUN with heredocs: the body of a lone one, else the line with the bodies behind it."""
        source = self.document.source
        if len(run.heredocs) == 1 and re.fullmatch(r"<<-?\s*(['\"]?)[^\s'\"<]+\1", run.value):
            lines = run.heredocs[0].lines(source)
            if lines and lines[0][1].startswith("#!") and not _SHEBANG.match(lines[0][1]):
                return None
            return Joined.of([(at, text.replace("\r\n", "\n")) for at, text in lines]) if lines else None
        pieces = [(run.argument.offset(i), char) for i, char in enumerate(run.value)]
        for heredoc in run.heredocs:
            end = source.line_end(source.line_index(heredoc.body.end))
            pieces += [
                (heredoc.body.start - 1, "\n"),
                (heredoc.body.start, source.text[heredoc.body.start : end].rstrip("\r\n")),
            ]
        return Joined.of(pieces)

    def placed(self, run: Instruction) -> tuple[known.Placed, ...] | None:
        """The commands of `run` with the folders they run in; None where the script cannot be read."""
        script = self.script(run)
        return None if script is None else known.placed(script, self.state(run).workdir)

    def deletes(self, run: Instruction, path: str) -> bool:
        """Whether `run` deletes `path` itself."""
        commands = self.placed(run)
        return commands is not None and any(known.covers(t.path, path) for t in known.deleted(commands))

    def cache_mounts(self, run: Instruction) -> tuple[str, ...]:
        """The targets of the cache and tmpfs mounts of `run`: what is written there never reaches the layer."""
        targets = (m.target for m in run.mounts if m.kind in ("cache", "tmpfs"))
        return tuple(absolute(target) for target in targets if target)

    def is_mounted(self, run: Instruction, path: str) -> bool:
        """Whether a cache or tmpfs mount of `run` covers `path`."""
        return any((path + "/").startswith(mounted.rstrip("/") + "/") for mounted in self.cache_mounts(run))

    def homes(self, run: Instruction) -> frozenset[str]:
        """The home folders that commands of the RUNs before `run` give to users."""
        found: set[str] = set()
        for earlier in (i for i in self.runs if i.index < run.index):
            for placed in self.placed(earlier) or ():
                if placed.command.name in ("useradd", "usermod", "adduser"):
                    args = placed.command.args
                    home = known.option_value(args, "-d", "--home-dir", "--home") or known.option_value(args, "-h")
                    found.update({absolute(home)} if home and home.startswith("/") else ())
        return frozenset(found)

    def up_to(self, instruction: Instruction, *keywords: str) -> tuple[Instruction, ...]:
        """What has run when `instruction` is done, itself included: of its stage and of those that it builds on, nearest
        first; only instructions with one of `keywords`, where there are any."""
        stages = self.document.stage_of(instruction).ancestry
        every = (i for stage in stages for i in stage.body if i.index <= instruction.index)
        return tuple(i for i in every if not keywords or i.keyword in keywords)

    def behind(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """What runs on top of `instruction`: the rest of its stage, then the stages that build on it."""
        stage = self.document.stage_of(instruction)
        later = [i for i in stage.body if i.index > instruction.index]
        later += [i for s in self.document.stages if s is not stage and stage in s.ancestry for i in s.body]
        return tuple(later)

    def scripts_started(self, instruction: Instruction) -> Iterator[str]:
        """The texts of the files of the build context that an instruction which cannot be read as a script names."""
        for word in self.document.raw(instruction).split():
            path = self.state(instruction).path(word.strip("\"',[]")) if "/" in word or word.endswith(".sh") else None
            for copy in self.copies_before(instruction) if path else ():
                source = copy.locate(path) if path else None
                text = self.context.read(source) if source else None
                if text is not None:
                    yield text

    def runs_on(self, root: Stage) -> tuple[Instruction, ...]:
        """The RUNs of the stages that start from `root`, itself included."""
        stages = (stage for stage in self.document.stages if root in stage.ancestry)
        return tuple(i for stage in stages for i in stage.body if i.keyword == "RUN")

    def names_later(self, run: Instruction, word: str) -> Instruction | None:
        """The first instruction behind `run`, in whatever stage, that holds `word`."""
        return next((i for i in self.document.instructions[run.index + 1 :] if word in self.document.raw(i)), None)

    def has_cache_mount(self, run: Instruction) -> bool:
        return any(mount.kind == "cache" for mount in run.mounts)

    # ---------------------------------------------------------------- claims

    def context_check(self) -> Check:
        """Whether the build context is certain: what rests on its files does not, where it is a guess."""
        folder = self.context.shown_as or "."
        if self.context.guess:
            return Check(f"the build context is {folder}, though {self.context.guess} (--context settles it)", holds=None)
        return Check(f"the build context is {folder}", holds=True)

    def mention(self, pattern: re.Pattern[str], what: str) -> Check:
        """Whether nothing in the Dockerfile or in the files that the builder gets mentions `what`, told by `pattern`.

        None where something does, or where there is too much to read. Comments of the Dockerfile do not count.
        """
        claim = f"nothing in the Dockerfile or the build context mentions {what}"
        mentioned = f"what mentions {what} does without the package that is no longer installed"
        for instruction in self.document.instructions:
            if pattern.search(self.document.raw(instruction)):
                return Check(mentioned, holds=None, evidence=(self.seen(instruction, f"mentions {what}"),))
        found = self.context.mentions(pattern)
        if isinstance(found, bool):
            everything = (c for stage in self.built for c in self.copies(stage))
            absent = next((c for c in everything if c.placements is None and not c.is_remote), None)
            if absent is not None:  # somebody puts files there before the build: they were not read
                return Check(claim, holds=None, evidence=(self.seen(absent.instruction, "copies files that are not here"),))
            return Check(claim, holds=None if found else True)
        return Check(mentioned, holds=None, evidence=(self.seen_in(found[0], f"mentions {what}", line=found[1]),))

    # ---------------------------------------------------------------- evidence

    def seen(self, instruction: Instruction, claim: str) -> Evidence:
        """A line of the Dockerfile, as its author numbered it, and what it says."""
        return self._evidence(instruction.span.start, claim)

    def seen_command(self, run: Instruction, command: Command, claim: str) -> Evidence:
        """The line of the Dockerfile that a command stands in."""
        if not self.is_editable(run):
            return self.seen(run, claim)
        return self._evidence(self.source_span(run, command.span).start, claim)

    def _evidence(self, offset: int, claim: str) -> Evidence:
        source = self.document.source
        index = source.line_index(offset)
        _, column = source.position(offset)
        excerpt = source.line(index).strip()
        return Evidence(Location(self.document.path, source.origin(offset), column), claim, excerpt)

    def seen_match(self, path: str, match: re.Match[str], claim: str) -> Evidence:
        """The line of a file of the build context that a pattern was found in, and what it says."""
        return self.seen_in(path, claim, line=match.string.count("\n", 0, match.start()) + 1)

    def seen_at(self, path: str, line: int, claim: str) -> Evidence:
        """A line of a file that is named as the user would type it, and what it says."""
        return Evidence(Location(path, line), claim)

    def seen_in(self, path: str, claim: str, *, line: int = 1, excerpt: str = "") -> Evidence:
        """A line of a file of the build context, and what it says."""
        return Evidence(Location(self.context.shown(path) or ".", line), claim, excerpt)


def _sources(instruction: Instruction) -> list[str]:
    """The stages or images that an instruction takes files from."""
    found = [flag.value for flag in instruction.flags if flag.name == "from" and flag.value]
    return found + [mount.options["from"] for mount in instruction.mounts if "from" in mount.options]
