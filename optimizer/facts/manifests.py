"""What a dependency install reads from the application: its manifests, or more than those. The words that readers answer in."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.facts.commands import Placed
    from optimizer.facts.context import BuildContext
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
    """An install that reads more of the application than can be told; `reason` says what, `evidence` where."""

    reason: str
    evidence: tuple[Evidence, ...] = ()


class Application:
    """The application as the image has it at one RUN: container paths led back to the build context."""

    def __init__(self, facts: Facts, locate: Callable[[str], str | None]) -> None:
        self.facts = facts
        self.context = facts.context
        self._locate = locate

    def source(self, container_path: str | None) -> str | None:
        """The path below the context of the file or folder at `container_path`, if it came from there and exists."""
        found = self._locate(container_path) if container_path is not None else None
        return found if found is not None and self.context.kind(found) is not None else None

    def project(self, placed: Placed, manifest: str) -> Project | None:
        """The project whose `manifest` lies where a command runs, or None where no copy brings one."""
        path = placed.path(manifest)
        source = self.source(path)
        if path is None or source is None or not self.context.is_file(source):
            return None
        return Project(self.context, posixpath.dirname(source), posixpath.dirname(path))

    def line(self, path: str, word: str, claim: str) -> Evidence:
        """The first line of a file of the context that holds `word`."""
        for number, text in enumerate((self.context.read(path) or "").splitlines(), 1):
            if word in text:
                return self.facts.seen_in(path, claim, line=number, excerpt=text.strip()[:120])
        return self.facts.seen_in(path, claim)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder of the context with a manifest, and the container folder that it is copied to."""

    context: BuildContext
    folder: str
    container: str

    def source(self, name: str) -> str:
        """The path below the context of `name` in the project."""
        return clean(posixpath.join(self.folder, name))

    def has(self, name: str) -> bool:
        """Whether the builder gets a file or folder of that name."""
        return self.context.kind(self.source(name)) is not None

    def read(self, name: str) -> str | None:
        return self.context.read(self.source(name))

    def files(self, *names: str) -> tuple[ManifestFile, ...]:
        """Those of `names` that are there."""
        return tuple(
            ManifestFile(self.source(name), posixpath.normpath(posixpath.join(self.container, name)))
            for name in names
            if self.has(name)
        )
