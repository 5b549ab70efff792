"""Docker's file patterns: `.dockerignore` lines, and the wildcards of COPY sources.

The rules are those of moby/patternmatcher and of Go's filepath.Match: anchored at the context's root, last match wins, `**`
for any number of folders. `.gitignore` matchers differ in all three (docs/adr/0003).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import lru_cache

_SET_OPERATORS = re.compile(r"[\[&~|]")  # what Python's regular expressions would read as set operations


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line of a `.dockerignore`: its text, the line's number from 1, and whether it starts with `!`."""

    text: str
    line: int
    is_exception: bool
    regex: re.Pattern[str]


def read_ignore_file(text: str) -> tuple[Pattern, ...]:
    """The patterns of a `.dockerignore`, in order; lines that cannot match anything are left out."""
    found = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        word = line.strip()
        if line.startswith("#") or not word:
            continue
        is_exception = word.startswith("!")
        word = clean(word[1:].strip() if is_exception else word)
        if word:
            found.append(Pattern(word, number, is_exception, _regex(word)))
    return tuple(found)


def ignoring(patterns: tuple[Pattern, ...], path: str) -> Pattern | None:
    """The pattern that keeps `path` out of the context, or None. A pattern that matches a folder holds for all below it."""
    names = [path]
    while (parent := posixpath.dirname(names[-1])) not in ("", "/"):
        names.append(parent)
    decisive = None
    for pattern in patterns:
        if any(pattern.regex.fullmatch(name) for name in names):
            decisive = None if pattern.is_exception else pattern
    return decisive


def clean(path: str) -> str:
    """A path below the context without `./`, `//`, a leading or a trailing `/`; "" for the context itself."""
    cleaned = posixpath.normpath("/" + path.replace("\\\\", "\\")).lstrip("/")
    return "" if cleaned == "." else cleaned


def has_wildcard(path: str) -> bool:
    return any(char in path for char in "*?[")


def matches(pattern: str, path: str) -> bool:
    """Whether a COPY source with wildcards matches `path`, as Go's filepath.Match does."""
    return _regex(clean(pattern)).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
            out += ".*" if at >= len(pattern) else "(?:.*/)?"
            continue
        char = pattern[at]
        closing = pattern.find("]", at + 2) if char == "[" else -1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif closing > 0:
            inner = pattern[at + 1 : closing]
            negated = "^" if inner.startswith("^") else ""
            members = _SET_OPERATORS.sub(r"\\\g<0>", inner.removeprefix("^"))
            out += f"[{negated}{members}]"
            at = closing
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            out += re.escape(pattern[at])
        else:
            out += re.escape(char)
        at += 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        return re.compile(r"(?!)")  # a malformed class matches nothing
