"""What a dependency install reads from the application: its manifests, or more than those. The words that readers answer in."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts
    from optimizer.rewrite import Check, Evidence


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file (or a folder with all in it) of the context that an install reads, and the container path it reads it at."""

    source: str
    path: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """An install that does with `files`.

    Where the command itself needs the sources too, `prefetch` is a command that downloads the same dependencies without
    them, `done_by` recognises a command that has done so before, and `folder` is the container folder to run it in.
    """

    what: str
    files: tuple[ManifestFile, ...]
    evidence: tuple[Evidence, ...]
    checks: tuple[Check, ...] = ()
    prefetch: str | None = None
    done_by: Callable[[Placed], bool] | None = None
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class NeedsSources:
    """An install that reads more of the application than can be told; `reason` says what, `evidence` where.

    `is_missing`: its manifest does not come from the build context, as far as that is known.
    """

    reason: str
    evidence: tuple[Evidence, ...] = ()
    is_missing: bool = False


class Application:
    """The application as the image has it just before `run`, or with `including` just behind it: container paths led back to
    the build context."""

    def __init__(self, facts: Facts, run: Instruction, *, including: bool = False) -> None:
        self.facts = facts
        self.run = run
        self.context = facts.context
        self.variables = (facts.end_state(facts.document.stage_of(run)) if including else facts.state(run)).variables
        self.copies = facts.copies_before(run, including=including)

    def source(self, container_path: str | None) -> str | None:
        """The path below the context of the file or folder at `container_path`, if it came from there and exists."""
        if container_path is None:
            return None
        for copy in reversed(self.copies):
            found = copy.locate(container_path)
            if found is not None and self.context.kind(found) is not None:
                return found
        return None

    def setting(self, placed: Placed, names: re.Pattern[str]) -> str | None:
        """The first environment variable of a command whose name (or `NAME=value`) matches."""
        words = (*placed.command.sets, *(f"{name}={value}" for name, value in self.variables.items()))
        return next((word.partition("=")[0] for word in words if names.match(word)), None)

    def project(self, placed: Placed, manifest: str) -> Project | None:
        """The project whose `manifest` lies where a command runs, or None where no copy brings one."""
        path = placed.path(manifest)
        source = self.source(path)
        if path is None or source is None or not self.context.is_file(source) or posixpath.basename(source) != manifest:
            return None  # under another name it is not the project's own
        return Project(self, posixpath.dirname(source), posixpath.dirname(path))

    def line(self, path: str, word: str, claim: str) -> Evidence:
        """The first line of a file of the context that holds `word`."""
        for number, text in enumerate((self.context.read(path) or "").splitlines(), 1):
            if word in text:
                return self.facts.seen_in(path, claim, line=number, excerpt=text.strip()[:120])
        return self.facts.seen_in(path, claim)


@dataclass(frozen=True, slots=True)
class Project:
    """A container folder with a manifest, and the folder of the context that the manifest comes from.

    Names are looked up where the install would find them, in the container, whichever COPY brings them there.
    """

    application: Application
    folder: str
    container: str

    def path(self, name: str) -> str:
        """The container path of `name` in the project."""
        return posixpath.normpath(posixpath.join(self.container, name))

    def source(self, name: str) -> str:
        """The path below the context of `name` in the project."""
        return self.application.source(self.path(name)) or clean(posixpath.join(self.folder, name))

    def has(self, name: str) -> bool:
        """Whether a copy brings a file or folder of that name."""
        return self.application.source(self.path(name)) is not None

    def read(self, name: str) -> str | None:
        source = self.application.source(self.path(name))
        return self.application.context.read(source) if source is not None else None

    def files(self, *names: str) -> tuple[ManifestFile, ...]:
        """Those of `names` that a copy brings."""
        found = ((self.application.source(self.path(name)), self.path(name)) for name in names)
        return tuple(ManifestFile(source, path) for source, path in found if source is not None)


def upwards(folder: str) -> Iterator[str]:
    """An absolute folder and those above it, nearest first."""
    while True:
        yield folder
        above = posixpath.dirname(folder)
        if above == folder:
            return
        folder = above


def distinct(files: Iterable[ManifestFile]) -> tuple[ManifestFile, ...]:
    """`files` without repetitions, and without what lies in a folder that is among them."""
    unique = tuple(dict.fromkeys(files))
    return tuple(f for f in unique if not any(f.source.startswith(f"{other.source}/") for other in unique))
