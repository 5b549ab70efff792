"""Transforms that are wrong on purpose, plugged in to see that verification catches, names and drops each of them.

They say honestly what they change in the contract, as the engine wants it: what they break shows only in the image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.contract import exec_entry
from optimizer.dockerfile.edit import Edit, Span
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety
from optimizer.transform import ENTRY_POINTS, Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from optimizer.dockerfile.document import Document
    from optimizer.facts import Facts

Change_ = tuple[tuple[Edit, ...], tuple[Change, ...]]


@dataclass(frozen=True)
class Wrong:
    """A transform that makes one edit, once."""

    name: str
    aspects: frozenset[Aspect]
    make: Callable[[Document], Change_]
    phase: Phase = Phase.METADATA

    @property
    def meta(self) -> Meta:
        what = self.name.replace("-", " ")
        return Meta(self.name, self.phase, self.aspects, (), what, f"it {what}", f"{what}\n\nWhy: It {what}.")

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        if f"# {self.name}" in document.source.text:
            return
        edits, changes = self.make(document)
        seen = facts.seen(document.instructions[-1], "is the last line")
        yield Rewrite(self, self.name, Safety.SAFE, edits, (seen,), changes=changes)


def _before_the_end(document: Document, line: str, name: str) -> Edit:
    last = next(i for i in document.instructions if i.keyword in ("ENTRYPOINT", "CMD"))
    return document.insert_before(last, f"# {name}\n{line}")


def _runs(name: str, command: str) -> Wrong:
    def make(document: Document) -> Change_:
        change = Change(Aspect.COMMANDS, added=commands_in(command))
        return (_before_the_end(document, f"RUN {command}", name),), (change,)

    return Wrong(name, frozenset({Aspect.COMMANDS}), make)


def _sets(name: str, keyword: str, value: str, aspect: Aspect) -> Wrong:
    def make(document: Document) -> Change_:
        return (_before_the_end(document, f"{keyword} {value}", name),), (Change(aspect, added=(value,)),)

    return Wrong(name, frozenset({aspect}), make)


def _starts(name: str, old: str, new: str) -> Wrong:
    """A CMD in which `old` is `new`."""

    def make(document: Document) -> Change_:
        command = next(i for i in reversed(document.instructions) if i.keyword == "CMD")
        text = document.raw(command)
        words = [word.replace(old, new) for word in command.exec_form or ()]
        change = Change(Aspect.CMD, removed=(exec_entry(command.exec_form or ()),), added=(exec_entry(words),))
        at = command.span.start + re.search(re.escape(old), text).start()  # type: ignore[union-attr]
        mark = document.insert_before(command, f"# {name}")
        return (mark, Edit(Span(at, at + len(old)), new)), (change,)

    return Wrong(name, frozenset({Aspect.CMD}), make)


def _copies(name: str, words: str) -> Wrong:
    def make(document: Document) -> Change_:
        return (_before_the_end(document, f"COPY {words}", name),), (Change(Aspect.COPIES, added=(f"COPY {words}",)),)

    return Wrong(name, frozenset({Aspect.COPIES}), make)


WRONG = {
    wrong.name: wrong
    for wrong in (
        _runs("drops-a-library", "rm -f /usr/lib/x86_64-linux-gnu/libsqlite3.so.0*"),
        _runs("loses-a-file", "rm -f /app/demo.sql"),
        _sets("changes-the-user", "USER", "65534", Aspect.USER),
        _starts("breaks-the-start", "gunicorn", "gunicorm"),
        _sets("changes-a-variable", "ENV", "NOTES_DB=/proc/notes.db", Aspect.ENV),
        _copies("mixes-releases", "--from=debian:trixie /usr/bin/sort /usr/local/bin/sort"),
        _runs("drops-a-package", "pip uninstall -y packaging"),
        _starts("moves-the-port", "18108", "18208"),
    )
}
# What an entry point needs: a module's attribute for each.
drops_a_library, loses_a_file, changes_the_user, breaks_the_start = list(WRONG.values())[:4]
changes_a_variable, mixes_releases, drops_a_package, moves_the_port = list(WRONG.values())[4:]


def plug_in(folder: Path, *names: str) -> None:
    """Lay down in `folder` what pip would install of a package that plugs these transforms in."""
    place = folder / "wrong-1.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1\n")
    lines = [f"{name} = tests.wrong:{name.replace('-', '_')}" for name in names]
    (place / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines, ""]))
