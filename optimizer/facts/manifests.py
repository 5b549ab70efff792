"""What a dependency install reads from the application: its manifests, or more than those.

Each ecosystem's reader answers for its own commands; `install_inputs` asks them all.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts
    from optimizer.rewrite import Check, Evidence


@dataclass(frozen=True, slots=True)
class Inputs:
    """An install that does with `files` (paths below the context; a folder stands for all in it).

    Where the command itself needs the sources too, `prefetch` is a command that downloads the same dependencies without
    them, `done_by` recognises a command that has done so before, and `folder` is the container folder to run it in.
    """

    what: str
    files: tuple[str, ...]
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

    def folder(self, placed: Placed) -> str | None:
        """The folder of the context that a command runs in, if it runs in one."""
        found = self.source(placed.cwd)
        return found if found is not None and self.context.is_folder(found) else None

    def present(self, folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `names` below `folder` that the builder gets."""
        paths = (posixpath.join(folder, name) for name in names)
        return tuple(path for path in paths if self.context.kind(path) is not None)

    def line(self, path: str, word: str, claim: str) -> Evidence:
        """The first line of a file of the context that holds `word`."""
        for number, text in enumerate((self.context.read(path) or "").splitlines(), 1):
            if word in text:
                return self.facts.seen_in(path, claim, line=number, excerpt=text.strip()[:120])
        return self.facts.seen_in(path, claim)


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What the dependency install `placed` reads, or None where it is none that is known."""
    for reader in _readers():
        found = reader(application, placed)
        if found is not None:
            return found
    return None


def _readers() -> Iterator[Callable[[Application, Placed], Inputs | NeedsSources | None]]:
    from optimizer.facts import go, node, python

    yield from (python.install_inputs, node.install_inputs, go.install_inputs)
