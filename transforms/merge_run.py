"""Join RUNs where that makes a layer smaller.

Why: A layer keeps what it wrote, whatever a later RUN deletes, or changes and so stores a second time.
Refuses: RUNs with other flags, an exec form, a heredoc, something started in the background, `set -e`, or a linter's comment
in between; and every pair of RUNs that joining would not make smaller.
Source: Docker's storage driver documentation, copy-on-write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.facts.commands import APT_ARCHIVES, Touched, changed, deleted, written
from optimizer.layers import adjacent_runs, join_runs, why_not_joined
from optimizer.rewrite import Refusal, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts


class MergeRun:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change=(), settles=("DL3059",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        done = -1
        for run in facts.shipped_runs():
            if run.index <= done:
                continue
            runs = adjacent_runs(facts, run)
            done = runs[-1].index
            while (pair := _saving(facts, runs)) is not None:
                proposal = self._proposal(facts, runs, *pair)
                yield proposal
                if isinstance(proposal, Rewrite):
                    break  # the others are looked at again in the joined text
                runs = runs[pair[0][1] :]

    def _proposal(
        self, facts: Facts, runs: list[Instruction], span: tuple[int, int], first: Touched, second: Touched
    ) -> Rewrite | Refusal:
        group = runs[span[0] : span[1] + 1]
        evidence = (
            facts.seen_command(group[0], first.command, f"puts {_shown(first.path)} into a layer"),
            facts.seen_command(group[-1], second.command, "deletes or changes it in another"),
        )
        if reason := why_not_joined(facts, group):
            seen = facts.seen(reason[1], "stands in the way")
            return Refusal(self, f"the layers stay apart: {reason[0]}", (*evidence, seen))
        return Rewrite(
            self,
            summary=f"{len(group)} RUNs become one layer, so that {_shown(first.path)} is not kept twice or in vain",
            safety=Safety.SAFE,
            edits=join_runs(facts, group),
            evidence=evidence,
            caveats=("a change to one of these commands now runs all of them again",),
        )


def _saving(facts: Facts, runs: list[Instruction]) -> tuple[tuple[int, int], Touched, Touched] | None:
    """The first stretch of `runs` whose last RUN deletes or changes what its first one wrote."""
    wrote: list[tuple[int, Touched]] = []
    for index, run in enumerate(runs):
        commands = facts.placed(run)
        if commands is None:
            wrote.clear()
            continue
        gone = deleted(commands)
        for second in (*gone, *changed(commands)):
            found = [(at, first) for at, first in wrote if at < index and second.covers(first)]
            if found and not _is_copied(facts, run, second):
                at, first = next((f for f in found if not _is_inside(second, f[1])), found[-1])
                return (at, index), first, second
        wrote += [(index, first) for first in written(commands) if _stays(facts, run, first, gone)]
    return None


def _is_inside(second: Touched, first: Touched) -> bool:
    """Whether what is deleted or changed is only something in a folder that was written."""
    return first.deep and second.path.startswith(first.path.rstrip("/") + "/")


def _stays(facts: Facts, run: Instruction, first: Touched, gone: tuple[Touched, ...]) -> bool:
    """Whether what a command wrote is in the layer when its RUN ends."""
    if first.path.startswith("cache:") and facts.has_cache_mount(run):
        return False
    base = facts.image(facts.document.stage_of(run))
    if first.path == APT_ARCHIVES and base is not None and base.manager == "apt":
        return False  # the images of Debian and Ubuntu empty it after every install
    deleted_later = any(g.command.span > first.command.span and g.covers(first) for g in gone)
    return not facts.is_mounted(run, first.path) and not deleted_later


def _is_copied(facts: Facts, run: Instruction, second: Touched) -> bool:
    """Whether what a command deletes or changes is in the layer of a COPY."""
    return any(copy.locate(second.path) is not None for copy in facts.copies_before(run))


def _shown(path: str) -> str:
    kind, colon, name = path.partition(":")
    if not colon:
        return path
    return f"the cache of {name}" if kind == "cache" else f"the package {name}"
