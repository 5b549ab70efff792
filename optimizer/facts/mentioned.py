"""Words in commands and sources that name programs without starting them where a reader would see it."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Programs that sources and scripts name as words: looked up, behind xargs, in a template of zx.
_STARTED_IN_TEXT = re.compile(
    r"\bwhich\(\s*['\"]([\w.+-]+)|\bxargs (?:-\S+ )*([\w.+-]+)|(?<![\w$])\$`\s*([\w.+-]+)|\bcommand -v ([\w.+-]+)"
)
_PROGRAM_PATH = re.compile(r"(?<![\w.-])/(?:usr/)?s?bin/(?P<name>[\w.+-]+)")
# Programs that tar hands an archive to.
_ARCHIVES = (("xz", r"\.t?xz\b", "J"), ("bzip2", r"\.(tbz2?|bz2)\b", "j"), ("zstd", r"\.t?zst\b", ""))
# Programs that look another one up, or start it from their arguments.
_STARTERS = frozenset("which type command xargs timeout nice nohup stdbuf setsid chroot time watch eval trap find env".split())


def helpers(words: tuple[str, ...]) -> Iterator[str]:
    """The programs that tar unpacks an archive with."""
    if not words or posixpath.basename(words[0]) != "tar":
        return
    text = " ".join(words[1:])
    for program, ending, letter in _ARCHIVES:
        is_told = bool(letter) and any(re.fullmatch(r"-?[a-zA-Z]+", word) and letter in word for word in words[1:2])
        if is_told or re.search(ending, text) or f"--{program}" in words:
            yield program


def handed_on(words: tuple[str, ...]) -> Iterator[str]:
    """The words that xargs, find, which and their like may start or look up."""
    if words and posixpath.basename(words[0]) in _STARTERS:
        yield from re.findall(r"[\w./+-]+", " ".join(words[1:]))


def programs_in(text: str) -> Iterator[str]:
    """The programs that a RUN or a source names by their path, looks up, or starts through a template or xargs."""
    for match in (*_PROGRAM_PATH.finditer(text), *_STARTED_IN_TEXT.finditer(text)):
        yield next(filter(None, match.groups()))
