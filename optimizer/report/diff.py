"""The outcome as a unified diff that `git apply` and `patch` read."""

from __future__ import annotations

import posixpath
from difflib import unified_diff
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.batch import FileResult


def render(result: FileResult) -> str:
    """The diff of one result; empty where nothing changes. Undecodable bytes stand in it as lone surrogates."""
    outcome, context = result.outcome, result.context
    if outcome is None or context is None:
        return ""
    parts = [_diff("", file.text, None, context.shown(file.path)) for file in outcome.files]
    parts.append(_diff(outcome.before.source.text, outcome.after.source.text, result.path, result.path))
    return "".join(parts)


def _diff(before: str, after: str, old: str | None, new: str) -> str:
    if before == after:
        return ""
    source = "/dev/null" if old is None else _quoted(posixpath.join("a", old))
    return "".join(_closed(unified_diff(_lines(before), _lines(after), source, _quoted(posixpath.join("b", new)))))


def _quoted(path: str) -> str:
    """`path` as git writes it: in quotes, with octal escapes, where it holds control characters, quotes, or more than ASCII."""
    data = path.encode("utf-8", "surrogateescape")
    if all(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in data):
        return path
    plain = (chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else f"\\{b:03o}" for b in data)
    return f'"{"".join(plain)}"'


def _lines(text: str) -> list[str]:
    """Lines as git sees them: only a line feed ends one."""
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _closed(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
