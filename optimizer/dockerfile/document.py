"""The lossless model of a Dockerfile: directives, stages, instructions, and the edits that change them.

`dockerfile-parse` tokenizes; it gets a masked copy with the same line numbers, since it takes heredoc bodies for
instructions, ends one at a blank continuation line and trips over a byte order mark (docs/adr/0002). All text comes from our
own line table.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, TYPE_CHECKING, cast

from dockerfile_parse import DockerfileParser

from optimizer.dockerfile.edit import Edit, Span
from optimizer.dockerfile.instruction import MAY_BE_JSON, Flag, Instruction
from optimizer.dockerfile.pragmas import pragmas_in
from optimizer.dockerfile.scan import Directive, DockerfileError, LogicalLine, Scan, scan
from optimizer.dockerfile.source import Source
from optimizer.dockerfile.words import (
    BLANKS,
    SPACE,
    flag_spans,
    is_json_array,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.joined import Joined

KEYWORDS = frozenset(
    """ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME
    WORKDIR""".split()
)
_NEED_NO_ARGUMENT = frozenset({"CMD", "ENTRYPOINT", "RUN"})
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, eq=False)
class Stage:
    """A build stage: its FROM and what follows. `parent` is the earlier stage that it builds on, if any."""

    index: int
    name: str | None
    image: str
    parent: Stage | None
    instructions: tuple[Instruction, ...]

    @property
    def base(self) -> Instruction:
        """The FROM instruction."""
        return self.instructions[0]

    @property
    def body(self) -> tuple[Instruction, ...]:
        return self.instructions[1:]

    def last(self, keyword: str) -> Instruction | None:
        return next((i for i in reversed(self.body) if i.keyword == keyword), None)

    @property
    def ancestry(self) -> Iterator[Stage]:
        """This stage and the stages that it builds on, nearest first."""
        stage: Stage | None = self
        while stage is not None:
            yield stage
            stage = stage.parent


@dataclass(frozen=True, eq=False)
class Document:
    """A Dockerfile. Raises DockerfileError from `parse` when it cannot be read."""

    source: Source
    directives: tuple[Directive, ...]
    escape: str
    instructions: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    comments: tuple[str, ...]
    path: str = field(default="Dockerfile")

    @classmethod
    def parse(cls, source: Source | bytes, path: str = "Dockerfile") -> Document:
        """Read a Dockerfile.

        Raises DockerfileError, with line and column, for what BuildKit's parser cannot read and for unknown instructions.
        """
        if isinstance(source, bytes):
            source = Source.from_bytes(source)
        cut = scan(source)
        instructions = tuple(_instructions(source, cut))
        comments = [source.line(index).strip() for index in cut.comments]
        comments += [source.line(i).strip() for line in cut.lines for i in line.inner_comments]
        return cls(source, cut.directives, cut.escape, instructions, _stages(source, instructions), tuple(comments), path)

    def edited(self, edits: Iterable[Edit]) -> Document:
        """The document after `edits`. Raises OverlappingEditsError, and DockerfileError when the result cannot be read."""
        return Document.parse(self.source.edited(edits), self.path)

    # ---------------------------------------------------------------- looking

    @cached_property
    def preamble(self) -> tuple[Instruction, ...]:
        """The ARG instructions above the first FROM."""
        return tuple(i for i in self.instructions if not self.stages or i.index < self.stages[0].base.index)

    def stage_of(self, instruction: Instruction) -> Stage:
        """The stage that `instruction` stands in."""
        return next(s for s in reversed(self.stages) if s.base.index <= instruction.index)

    def stage_named(self, name: str) -> Stage | None:
        """The stage called `name` (case does not matter), or with that number."""
        for stage in self.stages:
            if stage.name is not None and stage.name.lower() == name.lower():
                return stage
        if name.isdecimal() and int(name) < len(self.stages):
            return self.stages[int(name)]
        return None

    def neighbour(self, instruction: Instruction) -> Instruction | None:
        """The next instruction of the same stage."""
        at = instruction.index + 1
        if at >= len(self.instructions) or self.instructions[at].keyword == "FROM":
            return None
        return self.instructions[at]

    def raw(self, instruction: Instruction) -> str:
        """The instruction as it stands in the file."""
        return self.source.text[instruction.span.start : instruction.span.end]

    # ---------------------------------------------------------------- style

    def is_leading_style(self, run: Instruction) -> bool:
        """Whether the author starts continuation lines with `&&` rather than ending them so."""
        for text in (self.raw(run), self.source.text):
            leading = len(re.findall(r"^[ \t]*&&", text, re.MULTILINE))
            trailing = len(re.findall(rf"&&[ \t]*{re.escape(self.escape)}[ \t]*\r?$", text, re.MULTILINE))
            if leading or trailing:
                return leading > trailing
        return False

    def indent(self, run: Instruction) -> str:
        """The white space that continuation lines of `run` start with, or that of other RUNs in the file; four spaces else."""
        own = r"^([ \t]+)&&" if self.is_leading_style(run) else r"^([ \t]+)(?=[^\s#&])"
        chained = (
            r"^([ \t]+)&&" if self.is_leading_style(run) else rf"&&[ \t]*{re.escape(self.escape)}[ \t]*\r?\n([ \t]+)(?=[^\s#&])"
        )
        head = self.source.line(run.line.first)
        margin = head[: len(head) - len(head.lstrip(" \t"))]
        for candidate in (run, *self.instructions):
            if candidate.keyword != "RUN" or not candidate.is_multiline or candidate.heredocs:
                continue
            tail = self.source.text[self.source.line_starts[candidate.line.first + 1] : candidate.span.end]
            text, pattern = (tail, own) if candidate is run else (self.raw(candidate), chained)
            if found := re.findall(pattern, text, re.MULTILINE):
                return str(min(found, key=len))  # a branch is indented further than the script that it stands in
        return margin + "    "

    def chain(self, run: Instruction, joiner: str = "&&") -> tuple[str, str]:
        """What joins a command to the one before it in `run`, in its author's style: the end of the line above, and the
        start of the command's own line."""
        if run.heredocs:
            return f" {joiner}", " "
        newline, indent = self.source.newline, self.indent(run)
        if joiner == "&&" and self.is_leading_style(run):
            return f" {self.escape}{newline}", f"{indent}&& "
        space = "" if joiner == ";" else " "
        return f"{space}{joiner} {self.escape}{newline}", indent

    # ---------------------------------------------------------------- edits

    def replace(self, instruction: Instruction, text: str) -> Edit:
        return Edit(instruction.span, text)

    def insert_before(self, instruction: Instruction, text: str) -> Edit:
        """A new instruction above `instruction` and its lead."""
        start = self._line_start(instruction.whole.start)
        return Edit(Span(start, start), f"{self._margin(instruction)}{text}{self.source.newline}")

    def delete(self, instruction: Instruction) -> Edit:
        """Take out `instruction`, its lead, and the blank lines that only parted it from what came before."""
        lines = self._lines(instruction)
        return Edit(lines, "")

    def replace_with_lead(self, instruction: Instruction, text: str) -> Edit:
        """Put `text` in the place of `instruction` and its lead."""
        start = self._line_start(instruction.whole.start)
        return Edit(Span(start, instruction.whole.end), self._margin(instruction) + text)

    def block(self, instruction: Instruction) -> str:
        """The lines of `instruction` and its lead as they stand, and before them the blank line that sets them apart; the
        last newline is left out."""
        start = self._line_start(instruction.whole.start)
        gap = self.source.newline if self._is_apart(instruction) else ""
        return gap + self.source.text[start : instruction.whole.end]

    def _line_start(self, offset: int) -> int:
        return self.source.line_starts[self.source.line_index(offset)]

    def _margin(self, instruction: Instruction) -> str:
        return self.source.text[self._line_start(instruction.span.start) : instruction.span.start].lstrip("\ufeff")

    def _is_apart(self, instruction: Instruction) -> bool:
        """Whether a blank line stands above the instruction and its lead."""
        above = self.source.line_index(instruction.whole.start) - 1
        return above >= 0 and not self.source.line(above).strip()

    def _lines(self, instruction: Instruction) -> Span:
        """The lines of an instruction and its lead; with them one blank line above, where there is another one below."""
        source = self.source
        first = source.line_index(instruction.whole.start)
        last = source.line_index(instruction.span.end)
        start, end = source.line_starts[first], source.line_end(last)
        below = source.line(last + 1) if last + 1 < len(source.line_starts) else ""
        if self._is_apart(instruction) and not below.strip():
            start = source.line_starts[first - 1]
        elif first > 0 and end == len(source.text) and not source.line(last).endswith("\n"):
            start = source.line_end(first - 1) - len(source.newline)  # the last line has no newline: take the one before it
        return Span(start, end)


def _instructions(source: Source, cut: Scan) -> Iterator[Instruction]:
    tokens = _tokens(source, cut)
    comments = frozenset(cut.comments)
    for index, (line, keyword) in enumerate(zip(cut.lines, tokens, strict=True)):
        if keyword not in KEYWORDS:
            raise _unknown_instruction(source, cut, line, keyword)
        yield _instruction(source, cut.escape, line, keyword, index=index, comments=comments)


def _tokens(source: Source, cut: Scan) -> list[str]:
    """The keyword of each instruction, upper case, from dockerfile-parse."""
    masked = ["#\n"] * len(source.line_starts)
    for line in cut.lines:
        word = _UNPRINTABLE.sub("?", BLANKS.split(line.joined.text.strip(SPACE), maxsplit=1)[0])
        for number in range(line.first, line.last + 1):
            if number not in line.inner_comments and number not in line.inner_blanks:
                masked[number] = f"{word} ." + ("\n" if number == line.last else " \\\n")
        masked[line.last] = f"{word} .\n"
    structure = DockerfileParser(fileobj=cast("IO[str]", io.BytesIO("".join(masked).encode()))).structure  # it wants bytes
    found = [token for token in structure if token["instruction"] != "COMMENT"]
    if [(t["startline"], t["endline"]) for t in found] != [(line.first, line.last) for line in cut.lines]:
        raise AssertionError("dockerfile-parse and the line table disagree")  # a bug of ours: the mask is wrong
    return [str(token["instruction"]) for token in found]


def _instruction(
    source: Source, escape: str, line: LogicalLine, keyword: str, *, index: int, comments: frozenset[int]
) -> Instruction:
    joined = line.joined
    start = len(joined.text) - len(joined.text.lstrip(SPACE))
    argument = _trimmed(joined, start + len(keyword))
    if not argument.text and keyword not in _NEED_NO_ARGUMENT:
        row, column = source.position(joined.offset(start))
        raise DockerfileError(row, column, f"expected an argument after {keyword}")
    found, rest = flag_spans(argument.text)
    flags = tuple(_flag(argument, flag) for flag in found)
    value = _trimmed(argument, rest)
    end = source.line_starts[line.end] + len(source.line(line.end).rstrip("\r\n"))
    lead = _lead(source, line.first, comments)
    trigger = _trigger(source, escape, line, value, index=index) if keyword == "ONBUILD" else None
    instruction = Instruction(
        index,
        keyword,
        flags,
        value,
        line.heredocs,
        Span(joined.offset(start), end),
        lead,
        line,
        pragmas_in(source, lead),
        escape,
        trigger,
    )
    if complaint := _complaint(instruction):
        row, column = source.position(value.offset(0))
        raise DockerfileError(row, column, complaint)
    return instruction


def _complaint(instruction: Instruction) -> str | None:
    """What BuildKit's parser would not accept in the arguments, if anything."""
    keyword, value = instruction.keyword, instruction.value
    if keyword in ("ENV", "LABEL") and any(pair.value is None for pair in instruction.pairs):
        return f"expected {keyword} NAME=VALUE, found a name without a value"
    if keyword in MAY_BE_JSON and instruction.exec_form is None and is_json_array(value):
        return "expected an array of strings, found an array with something else in it"
    return None


def _trimmed(joined: Joined, start: int) -> Joined:
    """`joined` from `start` on, without white space at both ends."""
    text = joined.text[start:]
    stripped = text.lstrip(SPACE)
    start += len(text) - len(stripped)
    return joined.slice(start, start + len(stripped.rstrip(SPACE)))


def _flag(argument: Joined, flag: tuple[int, int, str]) -> Flag:
    start, end, text = flag
    name, equals, value = text[2:].partition("=")
    return Flag(name, value if equals else None, argument.span(start, end))


def _trigger(source: Source, escape: str, line: LogicalLine, value: Joined, *, index: int) -> Instruction:
    keyword = BLANKS.split(value.text, maxsplit=1)[0].upper()
    inner = LogicalLine(line.first, line.last, line.end, value, line.inner_comments, line.inner_blanks, line.heredocs)
    if keyword not in KEYWORDS:
        row, column = source.position(value.offset(0))
        raise DockerfileError(row, column, f'expected an instruction after ONBUILD, found "{keyword.lower()[:30]}"')
    return _instruction(source, escape, inner, keyword, index=index, comments=frozenset())


def _lead(source: Source, first: int, comments: frozenset[int]) -> Span | None:
    top = first
    while top - 1 in comments:
        top -= 1
    return Span(source.line_starts[top], source.line_end(first - 1)) if top < first else None


def _unknown_instruction(source: Source, cut: Scan, line: LogicalLine, keyword: str) -> DockerfileError:
    joined = line.joined
    row, column = source.position(joined.offset(len(joined.text) - len(joined.text.lstrip(SPACE))))
    word = BLANKS.split(joined.text.strip(SPACE), maxsplit=1)[0][:40].encode("ascii", "backslashreplace").decode()
    if row == 1 and not keyword.isascii():
        return DockerfileError(row, column, f'expected an instruction, found "{word}". Is this file a Dockerfile?')
    from difflib import get_close_matches

    close = get_close_matches(keyword, sorted(KEYWORDS), n=1, cutoff=0.75)
    hint = f"Did you mean {close[0]}?" if close else f'Is the line above missing a trailing "{cut.escape}"?'
    return DockerfileError(row, column, f'expected an instruction, found "{word}". {hint}')


def _stages(source: Source, instructions: tuple[Instruction, ...]) -> tuple[Stage, ...]:
    if not instructions:
        raise DockerfileError(1, 1, "expected at least one instruction, found none")
    starts = [i.index for i in instructions if i.keyword == "FROM"]
    first = starts[0] if starts else len(instructions)
    for instruction in instructions[:first]:
        if instruction.keyword != "ARG":
            row, column = source.position(instruction.span.start)
            raise DockerfileError(row, column, f"expected FROM or ARG, found {instruction.keyword}: no stage has begun")
    if not starts:
        row, column = source.position(instructions[-1].span.end)
        raise DockerfileError(row, column, "expected FROM, found the end of the file")
    stages: list[Stage] = []
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        stages.append(_stage(source, instructions[start:end], stages))
    return tuple(stages)


def _stage(source: Source, instructions: tuple[Instruction, ...], earlier: list[Stage]) -> Stage:
    base = instructions[0]
    words = [word.text for word in base.words]
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        row, column = source.position(base.span.start)
        raise DockerfileError(row, column, f'expected "FROM image" or "FROM image AS name", found {len(words)} arguments')
    name = words[2] if len(words) == 3 else None
    parent = next((s for s in reversed(earlier) if s.name and s.name.lower() == words[0].lower()), None)
    return Stage(len(earlier), name, words[0], parent, instructions)
