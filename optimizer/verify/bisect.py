"""Find the rewrites that break an image, with as few builds as possible. Pure: the builds are the caller's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.engine import Outcome
    from optimizer.rewrite import Key, Rewrite
    from optimizer.verify.difference import Difference

MAX_ROUNDS = 12


class Optimized(Protocol):
    """The file rewritten without some rewrites, and, with `at_most`, by the first ones alone."""

    def __call__(self, without: frozenset[Key], at_most: int | None = None) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Dropped:
    """A rewrite that was left out, what went wrong with it, and the last lines of the log where it did."""

    rewrite: Rewrite
    failures: tuple[Difference, ...]
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """What is wrong with an image: what no rewrite announced, and the last lines of its build or of its own output."""

    failures: tuple[Difference, ...]
    log: tuple[str, ...] = ()


@dataclass(slots=True)
class Bisection:
    """Looks for the rewrites to leave out.

    `optimized` gives the outcome without some rewrites; `check` builds an outcome and says what is wrong with it, None where
    nothing is. The original is known to hold.
    """

    optimized: Optimized
    check: Callable[[Outcome], Failed | None]
    dropped: list[Dropped] = field(default_factory=list)
    without: frozenset[Key] = frozenset()
    _known: dict[object, Failed | None] = field(default_factory=dict)

    def settle(self, outcome: Outcome, failed: Failed | None) -> Outcome:
        """The outcome that holds, starting from one of which it is known what `failed`; unchanged where nothing is left."""
        for _ in range(MAX_ROUNDS):
            if failed is None or not outcome.is_changed:
                return outcome
            for guilty in self._guilty(outcome, failed):
                self.dropped.append(guilty)
                self.without |= {guilty.rewrite.key}
            outcome = self.optimized(self.without)
            failed = self._checked(outcome)
        return self.optimized(self.without, 0)

    def _guilty(self, outcome: Outcome, failed: Failed) -> list[Dropped]:
        """The suspects, if the comparison knows them; else the first rewrite with which the image fails."""
        suspects = {failure.suspect for failure in failed.failures} - {None}
        named = [rewrite for rewrite in outcome.applied if rewrite.key in suspects]
        if named:
            return [Dropped(r, tuple(f for f in failed.failures if f.suspect == r.key), failed.log) for r in named]
        holds, fails, why = 0, len(outcome.applied), failed
        while fails - holds > 1:
            middle = (holds + fails) // 2
            found = self._checked(self.optimized(self.without, middle))
            if found is None:
                holds = middle
            else:
                fails, why = middle, found
        return [Dropped(outcome.applied[fails - 1], why.failures, why.log)]

    def _checked(self, outcome: Outcome) -> Failed | None:
        """What is wrong with an outcome; each is built once."""
        if not outcome.is_changed:
            return None
        key = (outcome.after.source.text, outcome.files)
        if key not in self._known:
            self._known[key] = self.check(outcome)
        return self._known[key]
