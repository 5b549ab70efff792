"""What COPY and ADD bring from the build context, and where it lands in the image."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean, has_wildcard
from optimizer.facts.places import PROGRAMS
from optimizer.facts.state import expand

if TYPE_CHECKING:
    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.facts import Facts


# Names that a COPY could not have as they stand.
AWKWARD = re.compile(r"[\s\[\]*?\"'$\\<]")
# Folders that every distribution has: a file that is copied there goes into them.
_THERE = frozenset({*PROGRAMS, *"/ /etc /opt /srv /tmp /usr /usr/local /usr/local/lib /usr/lib /usr/share /var".split()})
ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|gz|bz2|xz|zst)(\.\w+)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Placement:
    """A file or folder of the context and the container path that it lands at."""

    source: str
    path: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """A COPY or ADD from the build context.

    `placements` is None where a source or the destination cannot be told: a variable, a remote file, a heredoc, a flag that
    changes which files are taken; `unknown` says which. `folder` is the absolute destination, None where unknown. `roots` are
    the container paths that it writes: files, and what lies directly in a folder whose contents it copies.
    """

    instruction: Instruction
    sources: tuple[str, ...]
    destination: str
    folder: str | None
    placements: tuple[Placement, ...] | None
    roots: tuple[str, ...]
    unknown: str = ""

    def locate(self, path: str) -> str | None:
        """The path below the context of the file that this copy puts at container path `path`."""
        for placement in reversed(self.placements or ()):
            if placement.path == path and not placement.is_folder:
                return placement.source
            prefix = placement.path.rstrip("/") + "/"
            if placement.is_folder and path.startswith(prefix):
                return posixpath.join(placement.source, path[len(prefix) :])
            if placement.is_folder and path == placement.path:
                return placement.source
        return None

    def brings(self, source: str) -> bool:
        """Whether the file `source` of the context comes with this copy."""
        return any(
            source == p.source or (p.is_folder and (p.source == "" or source.startswith(p.source + "/")))
            for p in self.placements or ()
        )

    @property
    def is_remote(self) -> bool:
        """Whether all that it brings is from elsewhere: addresses, or heredocs."""
        return all("://" in source or source.startswith("<<") for source in self.sources)

    @property
    def flags(self) -> tuple[str, ...]:
        """Its flags as they would be written."""
        return tuple(f"--{f.name}" + ("" if f.value is None else f"={f.value}") for f in self.instruction.flags)

    def container_path(self, source: str) -> str | None:
        """Where the file `source` of the context lands."""
        for p in reversed(self.placements or ()):
            if p.source == source:
                return p.path
            if p.is_folder and (p.source == "" or source.startswith(p.source + "/")):
                return posixpath.join(p.path, source[len(p.source) :].lstrip("/"))
        return None


def copies(facts: Facts, stage: Stage) -> tuple[Copy, ...]:
    """The COPY and ADD instructions of `stage` that read the build context, in order."""
    return tuple(
        _copy(facts, instruction)
        for instruction in stage.body
        if instruction.keyword in ("COPY", "ADD") and instruction.flag("from") is None and len(instruction.words) >= 2
    )


def _copy(facts: Facts, instruction: Instruction) -> Copy:
    *sources, destination = (word.text for word in instruction.words)
    state = facts.state(instruction)
    folder = state.path(destination)
    expanded = [expand(source, state.variables) for source in sources]
    unknown = ""
    if any(flag.name in ("parents", "exclude") for flag in instruction.flags):
        unknown = "a flag of the COPY decides which files it takes"
    elif instruction.heredocs or any("://" in source for source in sources):
        unknown = "it brings more than files of the build context"
    elif folder is None or None in expanded:
        unknown = "a variable decides what it copies, or where to"
    known = [source for source in expanded if source is not None]
    placements = None if unknown or folder is None else _placements(facts, known, destination, folder)
    if placements is None and not unknown:
        unknown = "what it copies is not in the build context"
    unpacks = instruction.keyword == "ADD" and any(ARCHIVE.search(p.source) for p in placements or ())
    roots = _roots(facts, placements) if placements is not None and not unpacks else (folder or "/",)
    return Copy(instruction, tuple(sources), destination, folder, placements, roots, unknown)


def _roots(facts: Facts, placements: tuple[Placement, ...]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for placement in placements:
        if placement.is_folder:
            names = facts.context.names(placement.source)
            found |= dict.fromkeys(posixpath.join(placement.path, name) for name in names)
        else:
            found[placement.path] = None
    return tuple(found)


def _placements(facts: Facts, sources: list[str], destination: str, folder: str) -> tuple[Placement, ...] | None:
    """Where each source lands: a folder's contents go into the destination, a file goes into it or becomes it."""
    found: list[Placement] = []
    matched = [(source, path) for source in sources for path in facts.context.glob(source)]
    into = destination in (".", "..") or destination.endswith(("/", "/.", "/..")) or len(matched) > 1 or folder in _THERE
    for source in sources:
        paths = facts.context.glob(source)
        if not paths and not has_wildcard(source):
            return None  # not there: built by somebody before, or the context is another folder
        for path in paths:
            kind = facts.context.kind(path)
            if kind == "folder":
                found.append(Placement(path, folder, is_folder=True))
            else:
                name = posixpath.basename(clean(path))
                found.append(Placement(path, posixpath.join(folder, name) if into else folder, is_folder=False))
    return tuple(found)
