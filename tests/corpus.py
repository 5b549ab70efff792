"""Counts over a folder of real Dockerfiles: `python -m tests.corpus FOLDER`.

For each Dockerfile: bytes come back as they were; our model equals BuildKit's parser; a bold run (`--unsafe`) ends, is read
by that parser, keeps every comment and every shell command that no explanation names, and a second run changes nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from optimizer.batch import FileResult, fix_bytes
from optimizer.dockerfile.document import Document
from optimizer.dockerfile.scan import DockerfileError
from optimizer.dockerfile.source import Source
from tests.oracle import OracleError, buildkit, lost_commands, ours

BOLD = {"unsafe": True}
MOST = 5


@dataclass
class Counts:
    """What was counted; every list names the files that are exceptions, with the cause."""

    files: int = 0
    equal: int = 0
    unreadable: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    changed: int = 0
    left_alone: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    applied: Counter[str] = field(default_factory=Counter)
    held_back: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def report(self) -> str:
        lines = [
            f"{self.files} Dockerfiles, all with the same bytes after reading",
            f"{self.equal} equal to BuildKit's parser",
            *_named("not a Dockerfile to us or to BuildKit", self.unreadable),
            *_named("read differently than BuildKit", self.differ),
            f"{self.changed} changed by `fix --unsafe`",
            *_named("left alone", self.left_alone),
            *_named("BROKEN", self.broken),
            "",
            f"{'transform':24} applied held back  refused",
        ]
        names = sorted({*self.applied, *self.held_back, *self.refused})
        for name in names:
            lines.append(f"{name:24} {self.applied[name]:7} {self.held_back[name]:9} {self.refused[name]:8}")
            lines += [f"    {count:4}  {reason}" for reason, count in self.reasons[name].most_common(MOST)]
        return "\n".join(lines)


def _named(what: str, files: list[str]) -> list[str]:
    return [f"{len(files)} {what}", *(f"    {line}" for line in files)]


def dockerfiles(folder: Path) -> list[Path]:
    """The Dockerfiles that the corpus's manifest.json names."""
    packages = json.loads((folder / "manifest.json").read_text())
    return sorted(
        folder / package["registry"] / package["package"].replace("/", "+") / dockerfile["path"]
        for package in packages
        for dockerfile in package["dockerfiles"]
    )


def count(folder: Path) -> Counts:
    """Check every Dockerfile of the corpus in `folder`."""
    counts = Counts()
    for path in dockerfiles(folder):
        data, name = path.read_bytes(), str(path.relative_to(folder))
        counts.files += 1
        assert Source.from_bytes(data).to_bytes() == data, name
        if _compare(counts, data, name):
            _rewrite(counts, path, data, name)
    return counts


def _compare(counts: Counts, data: bytes, name: str) -> bool:
    """Hold our reading against BuildKit's; whether we can read the file."""
    theirs: object
    try:
        theirs = buildkit(data.decode("utf-8", "surrogateescape"))
    except OracleError as error:
        theirs = error
    try:
        document = Document.parse(data)
    except DockerfileError as error:
        counts.unreadable.append(
            f"{name}: {error} (BuildKit's parser: {theirs if isinstance(theirs, OracleError) else 'reads it, the build fails'})"
        )
        return False
    if ours(document) == theirs:
        counts.equal += 1
    else:
        counts.differ.append(f"{name}: {theirs if isinstance(theirs, OracleError) else 'other instructions'}")
    return True


def _rewrite(counts: Counts, path: Path, data: bytes, name: str) -> None:
    result = fix_bytes(data, path, BOLD)
    if result.left_alone is not None:
        counts.left_alone.append(f"{name}: {result.left_alone.reason}, line {result.left_alone.line}")
        return
    outcome = result.outcome
    assert outcome is not None
    counts.changed += outcome.is_changed
    counts.applied.update(r.name for r in outcome.applied)
    counts.held_back.update(r.name for r in outcome.held_back)
    counts.refused.update(r.name for r in outcome.refused)
    for refusal in outcome.refused:
        counts.reasons[refusal.name][f"refused: {_general(refusal.reason)}"] += 1
    for rewrite in outcome.held_back:
        counts.reasons[rewrite.name].update(f"unknown: {_general(claim)}" for claim in rewrite.unknown)
    counts.broken += [f"{name}: {why}" for why in wrong(result, path)]


def _general(reason: str) -> str:
    """A reason without the names that are of one file alone."""
    return re.sub(r"`[^`]*`|\"[^\"]*\"", "...", reason)[:110]


def wrong(result: FileResult, path: Path) -> list[str]:
    """What does not hold for a rewritten file."""
    outcome = result.outcome
    assert outcome is not None
    found = list(outcome.errors)
    after = outcome.after.source.to_bytes()
    try:
        if ours(outcome.after) != buildkit(outcome.after.source.text):
            found.append("BuildKit reads the result differently")
    except OracleError as error:
        found.append(f"BuildKit cannot read the result: {error}")
    if missing := Counter(outcome.before.comments) - Counter(outcome.after.comments):
        found.append(f"comments are lost: {list(missing)}")
    if lost := lost_commands(outcome):
        found.append(f"commands are lost: {lost}")
    again = fix_bytes(after, path, BOLD).outcome
    if again is None or again.after.source.to_bytes() != after:
        found.append("a second run changes the result")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.corpus FOLDER")
    print(count(Path(sys.argv[1])).report())
