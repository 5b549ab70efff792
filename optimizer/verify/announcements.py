"""What the applied rewrites announced, and where the Dockerfile puts files, before and after each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.rewrite import Aspect, FileChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.facts import Facts
    from optimizer.rewrite import Rewrite


class Announcements:
    """The rewrites `applied`, in their order; `facts(n)` are the facts about the document after the first n of them."""

    def __init__(self, applied: tuple[Rewrite, ...], facts: Callable[[int], Facts]) -> None:
        self.applied = applied
        self.facts = facts
        self._placed: dict[int, dict[str, str]] = {}
        self._brought: dict[int, frozenset[str]] = {}

    def who(self, change: FileChange) -> str | None:
        """The first applied transform that may make such a change."""
        return next((r.name for r in self.applied if self.may(r, change)), None)

    def may(self, rewrite: Rewrite, change: FileChange) -> bool:
        """Whether a rewrite may change files so; the base's only if it changed the base."""
        meta = rewrite.transform.meta
        if change not in meta.changes_files:
            return False
        is_base = change is FileChange.BASE and Aspect.BASE in meta.may_change
        return not is_base or any(entry.aspect is Aspect.BASE for entry in rewrite.changes)

    def brought(self, count: int) -> frozenset[str]:
        """Where the final stage, after `count` rewrites, puts what it copies from other stages."""
        if count not in self._brought:
            facts = self.facts(count)
            copies = (i for stage in facts.shipped for i in stage.body if i.keyword == "COPY" and i.flag("from") is not None)
            paths = (facts.state(copy).path(copy.destination) for copy in copies)
            self._brought[count] = frozenset(path for path in paths if path is not None and path != "/")
        return self._brought[count]

    def is_brought(self, path: str) -> bool:
        """Whether `path` is where the rewritten Dockerfile puts something of another stage."""
        return any(path == folder or path.startswith(f"{folder}/") for folder in self.brought(len(self.applied)))

    def placements(self, count: int) -> dict[str, str]:
        """Where the Dockerfile after `count` rewrites puts which files of the build context, as far as one can tell."""
        if count not in self._placed:
            facts = self.facts(count)
            self._placed[count] = {
                path: source
                for stage in reversed(facts.shipped)
                for copy in facts.copies(stage)
                for source in facts.files_of(copy)
                if (path := copy.container_path(source)) is not None
            }
        return self._placed[count]
