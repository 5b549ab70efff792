"""Spans and edits: the only way in which text changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open range of offsets into the decoded text, in characters."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"not a span: {self.start}..{self.end}")

    def contains(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Span) -> bool:
        """Whether both change a common character, or both insert at one place."""
        if self.start == other.start:
            return True
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `span` by `text`.

    `moved_from` is the offset that the text was taken from, where an edit is the second half of a move: it lets a later
    reader of the rewritten file find the line that the author wrote.
    """

    span: Span
    text: str
    moved_from: int | None = None


class OverlappingEditsError(ValueError):
    """Two edits of one batch touch the same text."""


def sorted_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Edits in text order. Raises OverlappingEditsError when two of them touch the same text."""
    ordered = tuple(sorted(edits, key=lambda e: e.span))
    for left, right in pairwise(ordered):
        if left.span.overlaps(right.span):
            raise OverlappingEditsError(f"edits overlap at {right.span.start}")
    return ordered


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """`text` with every edit applied. Raises OverlappingEditsError, and ValueError for an edit past the end."""
    pieces: list[str] = []
    at = 0
    for edit in sorted_edits(edits):
        if edit.span.end > len(text):
            raise ValueError(f"edit ends at {edit.span.end}, the text at {len(text)}")
        pieces += (text[at : edit.span.start], edit.text)
        at = edit.span.end
    pieces.append(text[at:])
    return "".join(pieces)
