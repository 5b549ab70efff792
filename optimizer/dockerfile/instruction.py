"""One instruction of a Dockerfile: keyword, flags, arguments, heredocs, and where each stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Span
from optimizer.dockerfile.words import BLANKS, Pair, arguments, json_strings, pairs, plain_words

if TYPE_CHECKING:
    from optimizer.dockerfile.joined import Joined
    from optimizer.dockerfile.pragmas import Pragma
    from optimizer.dockerfile.scan import Heredoc, LogicalLine

MAY_BE_JSON = frozenset({"ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"})
_PLAIN_LISTS = frozenset({"ADD", "COPY", "EXPOSE", "FROM", "VOLUME"})


@dataclass(frozen=True, slots=True)
class Flag:
    """`--name=value` of an instruction; `value` is None for a flag without one. The span covers the whole word."""

    name: str
    value: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Word:
    """A word of an instruction's arguments and where it stands."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Mount:
    """A `--mount` of a RUN: its type, where in the container it is ("" where that is not said), and all its options."""

    kind: str
    target: str
    options: dict[str, str]


@dataclass(frozen=True, eq=False)
class Instruction:
    """One instruction.

    `span` runs from the keyword to the end of the last line, heredocs included, without its newline. `lead` is the comment
    block directly above: a move takes it along. `value` is what BuildKit hands on after the flags, continuation lines joined;
    `argument` is the same with its way back to the source.
    """

    index: int
    keyword: str
    flags: tuple[Flag, ...]
    argument: Joined
    heredocs: tuple[Heredoc, ...]
    span: Span
    lead: Span | None
    line: LogicalLine
    pragmas: tuple[Pragma, ...]
    escape: str
    trigger: Instruction | None = None

    @property
    def value(self) -> str:
        return self.argument.text

    @cached_property
    def exec_form(self) -> tuple[str, ...] | None:
        """The strings of the JSON form, or None for any other form."""
        return json_strings(self.value) if self.keyword in MAY_BE_JSON else None

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The arguments split at blanks, with their spans; for the JSON form, its strings, each with the whole array's span."""
        if self.exec_form is not None:
            whole = self.argument.span(0, len(self.value))
            return tuple(Word(text, whole) for text in self.exec_form)
        return tuple(Word(text, self.argument.span(at, at + len(text))) for at, text in plain_words(self.value))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Names and values of ENV, LABEL and ARG."""
        if self.keyword in ("ENV", "LABEL"):
            return pairs(self.value, self.escape)
        return arguments(self.value, self.escape) if self.keyword == "ARG" else ()

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The arguments as BuildKit's parser reports them."""
        if self.exec_form is not None:
            return self.exec_form
        if self.keyword in _PLAIN_LISTS:
            return tuple(word.text for word in self.words)
        if self.keyword in ("ENV", "LABEL"):
            return tuple(part for pair in self.pairs for part in (pair.name, pair.value or ""))
        if self.keyword == "ARG":
            return tuple(self.value[pair.start : pair.end] for pair in self.pairs)
        if self.keyword == "HEALTHCHECK":
            return self._health_check
        return (self.value,) if self.value else ()

    @property
    def _health_check(self) -> tuple[str, ...]:
        if not self.value:
            return ()
        kind, *rest = BLANKS.split(self.value, maxsplit=1)
        command = rest[0] if rest else ""
        return (kind, *(json_strings(command) or ((command,) if command else ())))

    @property
    def destination(self) -> str:
        """The last argument: where a COPY or ADD goes; "" without one."""
        return self.words[-1].text if self.words else ""

    def flag(self, name: str) -> Flag | None:
        return next((flag for flag in self.flags if flag.name == name), None)

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        """The mounts of a RUN; without a type, one is a bind mount."""
        found = []
        for flag in self.flags:
            if flag.name == "mount":
                options = dict(part.partition("=")[::2] for part in (flag.value or "").split(","))
                target = next((options[name] for name in ("target", "dst", "destination") if name in options), "")
                found.append(Mount(options.get("type", "bind"), target, options))
        return tuple(found)

    @property
    def is_multiline(self) -> bool:
        return self.line.last > self.line.first

    @property
    def whole(self) -> Span:
        """The instruction with its lead."""
        return Span(self.lead.start, self.span.end) if self.lead else self.span
