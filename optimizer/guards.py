"""What speaks against a rewrite whichever transform made it: asked by the engine, so that no transform can forget it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import read_script
from optimizer.facts.archives import fetches, gone_since
from optimizer.facts.worked_in import worked_in
from optimizer.rewrite import Aspect, FileChange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.facts import Facts
    from optimizer.rewrite import Evidence, Rewrite

# What takes something out of the image that a person could miss, or the rights to use it.
_SLIMS = frozenset({FileChange.BASE, FileChange.BUILD, FileChange.DEVELOPMENT, FileChange.OWNER, FileChange.PACKAGES})


def objection(facts: Facts, rewrite: Rewrite) -> tuple[str, tuple[Evidence, ...]] | None:
    """Why `rewrite` must not be made in this image, and the lines that say so; None where nothing speaks against it."""
    if facts.target is not None and rewrite.transform.meta.changes_files & _SLIMS:
        found = worked_in(facts, facts.target)
        if found is not None:
            return found[0], (found[1],)
    return _from_dead_archive(facts, rewrite)


def _from_dead_archive(facts: Facts, rewrite: Rewrite) -> tuple[str, tuple[Evidence, ...]] | None:
    """A new call of a package manager on a release whose packages are gone from the servers: it would fail."""
    changes = [change for change in rewrite.changes if change.aspect is Aspect.COMMANDS]
    new = sum(_count(change.added) for change in changes) - sum(_count(change.removed) for change in changes)
    if new <= 0:
        return None
    after = facts.after(rewrite.edits)
    for stage in after.document.stages:
        since = gone_since(after, stage)
        is_fetched = any(fetches(command) for i in stage.body if i.keyword == "RUN" for command in after.commands(i))
        if since is not None and is_fetched:
            root = facts.shipped[-1].base if facts.shipped else facts.document.stages[0].base
            reason = f"it would install packages of a release that are gone from the servers since {since}"
            return reason, (facts.seen(root, "decides the release"),)
    return None


def _count(texts: Iterable[str]) -> int:
    scripts = (read_script(text) for text in texts)
    return sum(fetches(command) for script in scripts if script is not None for command in script.commands)
