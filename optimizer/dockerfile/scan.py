"""Which lines of a Dockerfile belong together: the line rules of BuildKit's parser.

Source of the rules: moby/buildkit, frontend/dockerfile/parser (Parse, trimContinuationCharacter, heredocsFromLine,
extractBuilderFlags, DirectiveParser), read 2026-11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from optimizer.dockerfile.edit import Span
from optimizer.dockerfile.joined import Joined
from optimizer.dockerfile.source import BOM, Source
from optimizer.dockerfile.words import SPACE, json_strings, unquoted, word_spans

DIRECTIVES = frozenset({"syntax", "escape", "check"})
_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC_WORD = re.compile(r"^(\d*)<<(-?)([^<]*)$")
_HEREDOC_KEYWORDS = re.compile(r"^(?:ONBUILD[\t\v\f\r ]+)?(RUN|COPY|ADD)[\t\v\f\r ]+(.*)", re.IGNORECASE | re.DOTALL)


class DockerfileError(ValueError):
    """A Dockerfile that cannot be read: where (`line` and `column`, both from 1) and what was expected."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"{line}:{column}: {message}")
        self.line, self.column, self.message = line, column, message


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive (`# syntax=...`, `# escape=...`, `# check=...`) and the line (index from 0) that it stands in."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A heredoc of an instruction: delimiter, whether variables in it expand, and the span of its body in the source."""

    name: str
    expand: bool
    chomp: bool
    body: Span

    def lines(self, source: Source) -> list[tuple[int, str]]:
        """(offset, text) of the body's lines, newlines included, without the tabs that `<<-` drops."""
        found, at = [], self.body.start
        for line in source.text[self.body.start : self.body.end].splitlines(keepends=True):
            dropped = len(line) - len(line.lstrip("\t")) if self.chomp else 0
            found.append((at + dropped, line[dropped:]))
            at += len(line)
        return found


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction: its lines (indices from 0, `last` and `end` included; `end` is that of its last heredoc)."""

    first: int
    last: int
    end: int
    joined: Joined
    inner_comments: tuple[int, ...]
    inner_blanks: tuple[int, ...]
    heredocs: tuple[Heredoc, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """A Dockerfile cut into directives, comments and instructions."""

    directives: tuple[Directive, ...]
    escape: str
    lines: tuple[LogicalLine, ...]
    comments: tuple[int, ...]


class _Cursor:
    """The lines of a source, one after the other, as (index, offset, text without its newline)."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.index = 0
        ends_open = source.line_starts[-1] == len(source.text)
        self.count = len(source.line_starts) - (1 if ends_open else 0)

    def next(self) -> tuple[int, int, str] | None:
        if self.index >= self.count:
            return None
        index = self.index
        self.index += 1
        start, text = self.source.line_starts[index], self.source.line(index)
        if index == 0 and text.startswith(BOM):
            start, text = start + 1, text[1:]
        return index, start, text.rstrip("\r\n")


def scan(source: Source) -> Scan:
    """Cut `source` into instructions. Raises DockerfileError for what BuildKit's parser cannot read either."""
    cursor = _Cursor(source)
    directives, escape = _directives(source)
    continued = re.compile(rf"(?:(?<=[^{re.escape(escape)}])|^){re.escape(escape)}[ \t]*$")
    lines: list[LogicalLine] = []
    comments: list[int] = []
    while (at := cursor.next()) is not None:
        index, start, text = at
        stripped = text.lstrip(SPACE)
        start += len(text) - len(stripped)
        if stripped.startswith("#"):
            comments.append(index)
        elif stripped:
            line = _logical_line(cursor, (index, start, stripped), continued)
            if line is not None:
                lines.append(line)
    known = {d.line for d in directives}
    return Scan(directives, escape, tuple(lines), tuple(c for c in comments if c not in known))


def _directives(source: Source) -> tuple[tuple[Directive, ...], str]:
    found: dict[str, Directive] = {}
    cursor = _Cursor(source)
    while (at := cursor.next()) is not None:
        index, _, text = at
        match = _DIRECTIVE.match(text.lstrip(SPACE))
        name = match[1].lower() if match is not None else ""
        if match is None or name not in DIRECTIVES:
            break
        if name in found:
            raise DockerfileError(index + 1, 1, f'expected one "{name}" directive, found a second')
        found[name] = Directive(name, match[2], index)
    escape = found["escape"].value if "escape" in found else "\\"
    if escape not in ("\\", "`"):
        line = found["escape"].line + 1
        raise DockerfileError(line, 1, f'expected the escape character "\\" or "`", found "{escape}"')
    return tuple(found.values()), escape


def _logical_line(cursor: _Cursor, at: tuple[int, int, str], continued: re.Pattern[str]) -> LogicalLine | None:
    first, start, text = at
    match = continued.search(text)
    pieces = [(start, text[: match.start()] if match else text)]
    comments, blanks, last = [], [], first
    while match:
        following = cursor.next()
        if following is None:
            break
        last, start, text = following
        if text.lstrip(SPACE).startswith("#"):
            comments.append(last)
            continue
        if not text.strip(SPACE):
            blanks.append(last)
            continue
        match = continued.search(text)
        pieces.append((start, text[: match.start()] if match else text))
    joined = Joined.of(pieces)
    if not joined.text.strip(SPACE):
        return None
    heredocs = _heredocs(cursor, joined, first)
    end = cursor.index - 1 if heredocs else last
    return LogicalLine(first, last, end, joined, tuple(comments), tuple(blanks), heredocs)


def _heredocs(cursor: _Cursor, joined: Joined, first: int) -> tuple[Heredoc, ...]:
    match = _HEREDOC_KEYWORDS.match(joined.text) if "<<" in joined.text else None
    if match is None or (match[2].lstrip(SPACE).startswith("[") and json_strings(match[2]) is not None):
        return ()
    return tuple(_body(cursor, word, first) for word in _heredoc_words(joined.text))


def _heredoc_words(line: str) -> list[tuple[str, bool, bool]]:
    """(delimiter, expand, chomp) of the heredocs that a line opens."""
    found = []
    spans, is_open = word_spans(line, "\\")
    if is_open:
        return []  # BuildKit's splitter gives up on the line, and so on its heredocs
    for start, end in spans:
        match = _HEREDOC_WORD.match(line[start:end])
        if match is None or not match[3]:
            continue
        name = "".join(char for _, char, _, _ in unquoted(match[3]))
        if name:
            found.append((name, name == match[3], bool(match[2])))
    return found


def _body(cursor: _Cursor, word: tuple[str, bool, bool], first: int) -> Heredoc:
    name, expand, chomp = word
    source = cursor.source
    start = source.line_starts[cursor.index] if cursor.index < len(source.line_starts) else len(source.text)
    while (at := cursor.next()) is not None:
        index, _, text = at
        if (text.lstrip("\t") if chomp else text) == name:
            return Heredoc(name, expand, chomp, Span(start, source.line_starts[index]))
    raise DockerfileError(first + 1, 1, f'expected a line "{name}" that ends the heredoc, found the end of the file')
