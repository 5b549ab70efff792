"""Delete apt's package lists in the layer that downloaded them.

Why: A file that a later RUN deletes still takes its space in the earlier layer; the lists are some 20 MB.
Refuses: A later RUN, or a stage or trigger built on this one, that installs without its own update; a script that ends in a way
that nothing can follow.
Source: Docker's best practices, "apt-get"; hadolint DL3009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.facts.commands import APT_LISTS, is_apt
from optimizer.layers import append_command
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety
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

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for run in facts.shipped_runs():
            downloaded = _update(facts, run)
            if downloaded is None or facts.deletes(run, APT_LISTS) or facts.is_mounted(run, APT_LISTS):
                continue
            here = facts.seen_command(run, downloaded, "downloads the lists and keeps them")
            if late := _first_install_without_update(document, facts, run):
                yield Refusal(
                    self, "a later RUN installs from these lists", (here, facts.seen(late, "has no update of its own"))
                )
                continue
            edit = append_command(facts, run, _CLEANUP)
            if edit is None:
                yield Refusal(self, "nothing can be appended to this script", (here,))
                continue
            yield Rewrite(
                self,
                summary="the package lists are deleted in the layer that downloaded them",
                safety=Safety.SAFE,
                edits=(edit,),
                evidence=(here,),
                changes=(Change(Aspect.COMMANDS, added=(_CLEANUP,)),),
            )


def _update(facts: Facts, run: Instruction) -> Command | None:
    script = facts.script(run)
    return next((c for c in script.commands if is_apt(c, "update")), None) if script else None


def _first_install_without_update(document: Document, facts: Facts, run: Instruction) -> Instruction | None:
    """The first RUN or trigger behind `run`, in its stage or in one built on it, that installs without its own update."""
    stage = document.stage_of(run)
    behind = [i for i in stage.body if i.index > run.index]
    behind += [i for s in document.stages if s is not stage and stage in s.ancestry for i in s.body]
    for instruction in behind:
        if instruction.keyword == "ONBUILD" and "install" in instruction.value:
            return instruction
        if instruction.keyword != "RUN":
            continue
        script = facts.script(instruction)
        if script is None:
            if "apt" in document.raw(instruction):
                return instruction
            continue
        first = next((c for c in script.commands if is_apt(c, "update", "install", "upgrade", "dist-upgrade")), None)
        if first is not None and not is_apt(first, "update"):
            return instruction
    return None
