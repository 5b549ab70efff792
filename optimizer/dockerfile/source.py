"""Bytes in, text out, and back to the same bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Edit, apply_edits, sorted_edits

if TYPE_CHECKING:
    from collections.abc import Iterable

BOM = "\ufeff"


@dataclass(frozen=True)
class Source:
    """The decoded text of a Dockerfile.

    Bytes that are not UTF-8 become lone surrogates and return to what they were. `origins` holds, for each line, the number
    (from 1) of the line in the file as its author wrote it, so that evidence found in a rewritten text names a line that
    the reader can find.
    """

    text: str
    origins: tuple[int, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> Source:
        return cls.from_text(data.decode("utf-8", "surrogateescape"))

    @classmethod
    def from_text(cls, text: str) -> Source:
        return cls(text, tuple(range(1, text.count("\n") + 2)))

    def to_bytes(self) -> bytes:
        return self.text.encode("utf-8", "surrogateescape")

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offset of the first character of each line; only a line feed ends a line, as in BuildKit's parser."""
        starts = [0]
        at = self.text.find("\n")
        while at != -1:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return tuple(starts)

    @cached_property
    def newline(self) -> str:
        """The newline that most lines end with."""
        crlf = self.text.count("\r\n")
        return "\r\n" if crlf * 2 > self.text.count("\n") else "\n"

    def line_index(self, offset: int) -> int:
        """Index (from 0) of the line that holds `offset`."""
        return bisect_right(self.line_starts, offset) - 1

    def line_end(self, index: int) -> int:
        """Offset just behind line `index`, its newline included."""
        starts = self.line_starts
        return starts[index + 1] if index + 1 < len(starts) else len(self.text)

    def line(self, index: int) -> str:
        """Line `index` with its newline."""
        return self.text[self.line_starts[index] : self.line_end(index)]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of `offset`, both from 1."""
        index = self.line_index(offset)
        return index + 1, offset - self.line_starts[index] + 1

    def origin(self, offset: int) -> int:
        """Number of the line, in the file as its author wrote it, that the text at `offset` comes from."""
        return self.origins[self.line_index(offset)]

    def edited(self, edits: Iterable[Edit]) -> Source:
        """This source with `edits` applied. Raises OverlappingEditsError."""
        edits = sorted_edits(edits)
        text = apply_edits(self.text, edits)
        after = Source.from_text(text)
        return Source(text, tuple(self._origins_after(after, edits)))

    def _origins_after(self, after: Source, edits: tuple[Edit, ...]) -> Iterable[int]:
        for start in after.line_starts:
            yield self.origin(self._offset_before(start, edits))

    def _offset_before(self, offset: int, edits: tuple[Edit, ...]) -> int:
        """The offset in this text that `offset` in the edited text stems from."""
        shift = 0
        for edit in edits:
            start = edit.span.start + shift
            if offset < start:
                break
            if offset < start + len(edit.text):
                if edit.moved_from is None:
                    ends_here = "\n" not in edit.text[offset - start :]  # the rest of the line is the author's own
                    return min(edit.span.end if ends_here else edit.span.start, len(self.text))
                return min(edit.moved_from + offset - start, len(self.text))
            shift += len(edit.text) - (edit.span.end - edit.span.start)
        return min(max(offset - shift, 0), len(self.text))
