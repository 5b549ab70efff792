"""How BuildKit cuts the arguments of an instruction into words.

Source of the rules: moby/buildkit, frontend/dockerfile/parser (parseWords, parseNameVal, parseMaybeJSON,
extractBuilderFlags), read 2026-11.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Go's unicode.IsSpace; Python's str.isspace() would add U+001C to U+001F.
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
BLANKS = re.compile(r"[\t\v\f\r ]+")
_NOT_BLANKS = re.compile(r"[^\t\v\f\r ]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """NAME=VALUE of an ENV, LABEL or ARG, quotes and escapes kept; `value` is None for an ARG without one."""

    name: str
    value: str | None
    start: int
    end: int


def word_spans(text: str, escape: str) -> tuple[list[tuple[int, int]], bool]:
    """Start and end of each word, quotes kept together, and whether a quote stays open."""
    spans: list[tuple[int, int]] = []
    start, quote, at = -1, "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'":
            start = at if start < 0 else start
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in SPACE:
            if start >= 0:
                spans.append((start, at))
            start = -1
        else:
            start = at if start < 0 else start
            quote = char if char in "'\"" else ""
        at += 1
    if start >= 0:
        spans.append((start, min(at, len(text))))
    return spans, bool(quote)


def unquoted(text: str, escape: str = "\\", special: str = '"$\\') -> Iterator[tuple[int, str, str, bool]]:
    """The characters of `text` after quote removal: index, character, quote in force ("" for none), and whether escaped.

    In double quotes the escape character stays, but for one before a character of `special`.
    """
    quote, at = "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            if quote == '"' and text[at + 1] not in special:
                yield at, char, quote, True
            yield at + 1, text[at + 1], quote, True
            at += 2
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            yield at, char, quote, False
        at += 1


def plain_words(text: str) -> list[tuple[int, str]]:
    """(offset, word) split at blanks only: what COPY, ADD, FROM, EXPOSE and VOLUME see. Quotes mean nothing here."""
    return [(m.start(), m[0]) for m in _NOT_BLANKS.finditer(text)]


def json_strings(text: str) -> tuple[str, ...] | None:
    """The exec form of an instruction: its strings, or None where `text` is not a JSON array of strings."""
    found = _json(text)
    return tuple(found) if found is not None and all(isinstance(word, str) for word in found) else None


def is_json_array(text: str) -> bool:
    """Whether `text` is a JSON array, of whatever."""
    return _json(text) is not None


def _json(text: str) -> list[str] | None:
    text = text.strip(SPACE)
    if not text.startswith("["):
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text)  # like BuildKit, whatever stands behind the array
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def pairs(text: str, escape: str) -> tuple[Pair, ...]:
    """The NAME=VALUE pairs of ENV and LABEL, the old `ENV name value` included."""
    spans, _ = word_spans(text, escape)
    words = [(start, end, text[start:end]) for start, end in spans]
    if words and "=" not in words[0][2]:
        parts = BLANKS.split(text.strip(SPACE), maxsplit=1)
        value = parts[1] if len(parts) > 1 else None
        return (Pair(parts[0], value, words[0][0], words[-1][1]),)
    return arguments(text, escape)


def arguments(text: str, escape: str) -> tuple[Pair, ...]:
    """The NAME or NAME=VALUE words of ARG."""
    spans, _ = word_spans(text, escape)
    found = []
    for start, end in spans:
        name, equals, value = text[start:end].partition("=")
        found.append(Pair(name, value if equals else None, start, end))
    return tuple(found)


def flag_spans(text: str) -> tuple[list[tuple[int, int, str]], int]:
    """The `--flag` words in front of an instruction's arguments as (start, end, text without quotes), and where these begin."""
    flags: list[tuple[int, int, str]] = []
    at = 0
    while True:
        while at < len(text) and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return flags, at
        start, word, quote = at, "", ""
        while at < len(text) and (quote or text[at] not in SPACE):
            char = text[at]
            if char == "\\" and at + 1 < len(text):
                at += 1
                word += text[at]
            elif quote:
                word += "" if char == quote else char
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            else:
                word += char
            at += 1
        if word == "--":
            return flags, at
        flags.append((start, at, word))
