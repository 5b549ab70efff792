"""What full images bring by themselves, fonts and tables that nobody asks for by name, and whether an application uses it.

The table is `supplies.toml`. A program without them does not fail: it draws with another font, or serves another type. So every
swap of a base asks here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from optimizer.facts.packages import table

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Supply:
    """A kind of data: `what` it is, the Debian `packages` that hold it by release, and what uses it: packages of Python, npm
    and Debian, programs, and lines of sources that match `sources`."""

    name: str
    what: str
    packages: Mapping[str, tuple[str, ...]]
    python: frozenset[str]
    node: frozenset[str]
    debian: frozenset[str]
    programs: frozenset[str]
    sources: re.Pattern[str]

    def user_among(self, kind: str, names: Mapping[str, object] | frozenset[str]) -> str | None:
        """The first of `names`, which are of that `kind` ("python", "node", "debian", "programs"), that uses it."""
        users: frozenset[str] = getattr(self, kind)
        return next((name for name in sorted(names) if name in users), None)


@cache
def supplies() -> tuple[Supply, ...]:
    """Everything that the table knows."""
    rows = ((name, row) for name, row in table("supplies").items() if isinstance(row, dict))
    return tuple(_supply(name, row) for name, row in rows)


def _supply(name: str, row: dict[str, Any]) -> Supply:
    packages = {release: tuple(names) for release, names in row["packages"].items()}
    python, node, debian, programs = (frozenset(row[kind]) for kind in ("python", "node", "debian", "programs"))
    return Supply(name, row["what"], packages, python, node, debian, programs, re.compile(row["sources"], re.MULTILINE))
