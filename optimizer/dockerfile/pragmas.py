"""Comments that tell a tool to leave an instruction alone.

`# dockeropt: ignore=merge-run # why`, and what other linters read: `# hadolint ignore=DL3009`, `# tally ignore=all`.
Anywhere in the file: `# check=skip=JSONArgsRecommended` (BuildKit's directive) and `# hadolint global ignore=DL3059`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.dockerfile.edit import Span
    from optimizer.dockerfile.source import Source

_PRAGMA = re.compile(
    r"^\s*#\s*(?P<tool>dockeropt|hadolint|tally)\s*:?\s+(?P<scope>global\s+)?ignore\s*=\s*(?P<names>[\w\-/.]+(?:\s*,\s*[\w\-/.]+)*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Pragma:
    """Names of transforms or linter rules that the author switched off, and the line (index from 0) that says so."""

    names: frozenset[str]
    line: int
    is_global: bool

    def covers(self, names: frozenset[str]) -> bool:
        return "all" in self.names or not self.names.isdisjoint(names)


def pragma(text: str, line: int) -> Pragma | None:
    """The pragma in a comment line, if it is one."""
    match = _PRAGMA.match(text)
    if match is None:
        return None
    names = frozenset(name.strip().rpartition("/")[2].lower() for name in match["names"].split(","))
    return Pragma(names, line, match["scope"] is not None)


def pragmas_in(source: Source, lead: Span | None) -> tuple[Pragma, ...]:
    """The pragmas in the comment block above an instruction."""
    if lead is None:
        return ()
    first, last = source.line_index(lead.start), source.line_index(lead.end - 1)
    found = (pragma(source.line(index), index) for index in range(first, last + 1))
    return tuple(p for p in found if p is not None)
