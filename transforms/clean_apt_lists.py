"""Delete apt's package lists in the layer that downloaded them.

Why: A file that a later RUN deletes still takes its space in the earlier layer; the lists are some 20 MB.
Refuses: A later RUN, a stage or trigger built on this one, what the image starts, or a Dockerfile beside it that builds on the
image, where one installs without its own update, by apt, by a tool or a script that calls it, or by a program that was not
read; lists that stay in an earlier layer; a script that ends in a way that nothing can follow. Unsafe for an image that starts
nothing: others build on it.
Source: Docker's best practices, "apt-get"; hadolint DL3009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.facts.apt_lists import later_use
from optimizer.facts.commands import APT_LISTS, covers, deleted, is_apt
from optimizer.layers import append_command, as_run
from optimizer.rewrite import Aspect, Change, Check, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts

_CLEANUP = f"rm -rf {APT_LISTS}/*"


class CleanAptLists:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3009",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        for run in facts.shipped_runs():
            downloaded = next((c for c in reversed(facts.commands(run)) if is_apt(c, "update")), None)
            if downloaded is None or _is_cleaned(facts, run, downloaded) or facts.is_mounted(run, APT_LISTS):
                continue
            here = facts.seen_command(run, downloaded, "downloads the lists and keeps them")
            if (use := later_use(facts, run)) is not None:
                yield Refusal(self, use[0], (here, *use[1]))
                continue
            cleanup = as_run(downloaded, _CLEANUP)
            edit = append_command(facts, run, cleanup)
            if edit is None:
                yield Refusal(self, "nothing can be appended to this script", (here,))
                continue
            if (earlier := _lists_below(facts, run)) is not None:
                seen = facts.seen(earlier, "keeps its own lists in a layer below")
                yield Refusal(self, "the lists stay in an earlier layer: deleting them here frees nothing", (here, seen))
                continue
            built_on = "what is built on this image, which starts nothing itself, runs its own `apt-get update`"
            decision = decide(Safety.SAFE, (Check(built_on, holds=facts.starts_something or None),))
            yield Rewrite(
                self,
                summary="the package lists are deleted in the layer that downloaded them",
                safety=decision.safety,
                edits=(edit,),
                evidence=(here,),
                changes=(Change(Aspect.COMMANDS, added=(cleanup,)),),
                unknown=decision.unknown,
            )


def _lists_below(facts: Facts, run: Instruction) -> Instruction | None:
    """A RUN in front of `run`, in the image, that keeps the lists which it downloads, since something behind it needs them."""
    for earlier in facts.up_to(run, "RUN"):
        updates = [c for c in facts.commands(earlier) if is_apt(c, "update")] if earlier is not run else []
        if updates and not _is_cleaned(facts, earlier, updates[-1]) and not facts.is_mounted(earlier, APT_LISTS):
            return earlier if later_use(facts, earlier) is not None else None
    return None


def _is_cleaned(facts: Facts, run: Instruction, update: Command) -> bool:
    gone = deleted(facts.placed(run) or ())
    return any(covers(t.path, APT_LISTS) and (t.command.span > update.span or t.command.span == update.span) for t in gone)
