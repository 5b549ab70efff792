"""What may differ between two images, in words that every part of verification speaks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.rewrite import Key
    from optimizer.verify.images import ImageConfig
    from optimizer.verify.snapshot import Snapshot


class Area(Enum):
    """What is compared."""

    BUILD = "build"
    CONFIG = "configuration"
    FILES = "files"
    LINKAGE = "linkage"
    PACKAGES = "packages"
    BEHAVIOUR = "behaviour"


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, in words.

    `by`: the transform that announced it, None for a failure; `count` of alike ones; `suspect`: the rewrite that is known to
    have made it.
    """

    area: Area
    what: str
    by: str | None = None
    count: int = 1
    suspect: Key | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its configuration, and its files."""

    tag: str
    config: ImageConfig
    files: Snapshot


def failures(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """Those that no rewrite announced."""
    return tuple(difference for difference in differences if difference.by is None)
