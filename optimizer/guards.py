"""What speaks against a rewrite whichever transform made it: asked by the engine, so that no transform can forget it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import read_script, subcommand
from optimizer.facts.commands import APT
from optimizer.facts.images import archived
from optimizer.facts.worked_in import worked_in
from optimizer.rewrite import Aspect, FileChange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.rewrite import Evidence, Rewrite

# What takes something out of the image that a person could miss, or the rights to use it.
_SLIMS = frozenset({FileChange.BASE, FileChange.BUILD, FileChange.DEVELOPMENT, FileChange.OWNER, FileChange.PACKAGES})
_FETCHES = {
    **dict.fromkeys(APT, frozenset({"update", "install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep"})),
    "apk": frozenset({"add", "update", "upgrade"}),
    **dict.fromkeys(("yum", "dnf", "microdnf"), frozenset({"install", "update", "upgrade", "groupinstall"})),
    "zypper": frozenset({"install", "in", "update", "up", "refresh", "ref"}),
}


def objection(facts: Facts, rewrite: Rewrite) -> tuple[str, tuple[Evidence, ...]] | None:
    """Why `rewrite` must not be made in this image, and the lines that say so; None where nothing speaks against it."""
    if facts.target is not None and rewrite.transform.meta.changes_files & _SLIMS:
        found = worked_in(facts, facts.target)
        if found is not None:
            return found[0], (found[1],)
    return _from_dead_archive(facts, rewrite)


def fetches(command: Command) -> bool:
    """Whether a command fetches packages of a distribution, or their lists."""
    verbs = _FETCHES.get(command.name or "")
    return verbs is not None and subcommand(command) in verbs


def _from_dead_archive(facts: Facts, rewrite: Rewrite) -> tuple[str, tuple[Evidence, ...]] | None:
    """A new call of a package manager on a release whose packages are gone from the servers: it would fail."""
    changes = [change for change in rewrite.changes if change.aspect is Aspect.COMMANDS]
    new = sum(_count(change.added) for change in changes) - sum(_count(change.removed) for change in changes)
    if new <= 0:
        return None
    after = facts.after(rewrite.edits)
    for stage in after.document.stages:
        base = after.image(stage)
        since = archived(base) if base is not None else None
        is_fetched = any(fetches(command) for i in stage.body if i.keyword == "RUN" for command in after.commands(i))
        if since is None or base is None or not is_fetched:
            continue
        root = facts.shipped[-1].base if facts.shipped else facts.document.stages[0].base
        reason = f"it would install packages of {base.release}, which are gone from the servers since {since}"
        return reason, (facts.seen(root, f"is {base.release}"),)
    return None


def _count(texts: Iterable[str]) -> int:
    scripts = (read_script(text) for text in texts)
    return sum(fetches(command) for script in scripts if script is not None for command in script.commands)
