"""The text of one instruction as BuildKit hands it on, with a way back to the file.

BuildKit drops the newlines, comment lines and continuation characters inside an instruction. What is left is what a shell,
a word splitter or a JSON reader sees; `Joined` remembers where in the file each character of it stands.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from optimizer.dockerfile.edit import Span


@dataclass(frozen=True)
class Joined:
    """`text`, and the offset in the source of the start of each of its pieces."""

    text: str
    starts: tuple[int, ...]
    sources: tuple[int, ...]
    base: int = field(default=0)

    @classmethod
    def of(cls, pieces: list[tuple[int, str]]) -> Joined:
        """From (offset in the source, text) pairs, in order."""
        starts, sources, length = [], [], 0
        for source, text in pieces:
            if text:
                starts.append(length)
                sources.append(source)
                length += len(text)
        return cls("".join(text for _, text in pieces), tuple(starts) or (0,), tuple(sources) or (pieces[0][0],))

    def offset(self, index: int) -> int:
        """Offset in the source of the character at `index`; for the end of the text, just behind its last character."""
        if index > 0 and index == len(self.text):
            return self.offset(index - 1) + 1
        at = index + self.base
        piece = bisect_right(self.starts, at) - 1
        return self.sources[piece] + at - self.starts[piece]

    def span(self, start: int, end: int) -> Span:
        """The stretch of source that holds the characters `start` to `end` (half-open) and whatever lies between them."""
        first = self.offset(start)
        return Span(first, self.offset(end - 1) + 1 if end > start else first)

    def slice(self, start: int, end: int) -> Joined:
        return Joined(self.text[start:end], self.starts, self.sources, self.base + start)
