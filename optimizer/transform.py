"""What a transform is, and how the built-in and the plugged-in ones are found.

The only module that imports the package `transforms`. A plug-in registers a transform's class or instance under the entry
point group `dockeropt.transforms`.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.facts import Facts
    from optimizer.rewrite import Aspect, FileChange, Refusal, Rewrite

ENTRY_POINTS = "dockeropt.transforms"


class Phase(IntEnum):
    """When a transform runs: what it changes decides what the later ones see."""

    CONTEXT = 0
    LAYOUT = 1
    COMMANDS = 2
    STAGES = 3
    BASE = 4
    LAYERS = 5
    METADATA = 6
    USER = 7


@dataclass(frozen=True, slots=True)
class Meta:
    """Name, place and licence of a transform. `summary`, `why` and `page` come from its module's docstring.

    `may_change` is what it may change of the image's configuration, `changes_files` what it may do to the image's files.
    """

    name: str
    phase: Phase
    may_change: frozenset[Aspect]
    settles: tuple[str, ...]
    summary: str
    why: str
    page: str
    changes_files: frozenset[FileChange] = frozenset()

    @classmethod
    def of(
        cls,
        module: str,
        *,
        phase: Phase,
        may_change: Iterable[Aspect] = (),
        settles: tuple[str, ...] = (),
        changes_files: Iterable[FileChange] = (),
    ) -> Meta:
        """The meta of the transform in `module`; its docstring is the page that a user reads.

        Raises ValueError when the docstring has no "Why:" line.
        """
        page = inspect.cleandoc(sys.modules[module].__doc__ or "")
        match = re.search(r"^Why: (.*?)(?:\n\n|\n[A-Z][a-z]+: |\Z)", page, re.MULTILINE | re.DOTALL)
        if match is None:
            raise ValueError(f'{module}: expected a "Why:" line in the docstring')
        name = module.rpartition(".")[2].replace("_", "-")
        summary = page.partition("\n")[0].rstrip(".")
        why = " ".join(match[1].split())
        return cls(name, phase, frozenset(may_change), settles, summary, why, page, frozenset(changes_files))

    @property
    def answers_to(self) -> frozenset[str]:
        """The names that a pragma may call it by, lower case."""
        return frozenset({self.name, *(rule.lower() for rule in self.settles)})


class Transform(Protocol):
    """A rewrite rule. Pure: no I/O, no globals, no state."""

    @property
    def meta(self) -> Meta: ...

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        """What this transform would do to `document`, and what it would not do though a reader may expect it."""
        ...


@cache
def all_transforms() -> tuple[Transform, ...]:
    """The built-in transforms in the order in which they run, each plug-in behind those of its phase.

    Raises ValueError when two transforms have one name.
    """
    found = [*_built_in(), *_plugged_in()]
    names = [transform.meta.name for transform in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two transforms are called {', '.join(sorted(twice))}")
    return tuple(sorted(found, key=lambda transform: transform.meta.phase))


def _built_in() -> Iterator[Transform]:
    from transforms import ORDER

    for name in ORDER:
        module = import_module(f"transforms.{name}")
        yield cast("Transform", getattr(module, "".join(part.title() for part in name.split("_")))())


def _plugged_in() -> Iterator[Transform]:
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        loaded = point.load()
        yield cast("Transform", loaded() if isinstance(loaded, type) else loaded)
