"""Cleaning up behind a package manager in the RUN that used it: what the `clean-...-cache` transforms share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.layers import append_command, as_run, commands_in
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.transform import Transform


@dataclass(frozen=True, slots=True)
class PackageCache:
    """A cache that a package manager leaves in the layer.

    `fills` recognises the commands that fill it, `command` empties it (given the command that filled it), `is_emptied` tells
    whether a RUN does so already, `objection` what speaks against emptying it, if anything, and `folder` a word that a later
    instruction would name the cache by.
    """

    what: str
    fills: Callable[[Command], bool]
    command: Callable[[Command], str]
    is_emptied: Callable[[Facts, Instruction], bool]
    objection: Callable[[Facts, Instruction], str | None] = lambda _facts, _run: None
    folder: str = ""

    def rewrites(self, transform: Transform, facts: Facts) -> Iterator[Rewrite | Refusal]:
        """Empty the cache at the end of every shipped RUN that fills it."""
        for run in facts.shipped_runs():
            script = facts.script(run)
            filling = next((c for c in (script.commands if script else ()) if self.fills(c)), None)
            if filling is None or self.is_emptied(facts, run):
                continue
            text = as_run(filling, self.command(filling))
            here = facts.seen_command(run, filling, f"leaves {self.what} in the layer")
            if facts.has_cache_mount(run):
                yield Refusal(transform, "emptying the cache would empty the mount that other builds share", (here,))
            elif self.folder and (later := facts.names_later(run, self.folder)) is not None:
                yield Refusal(
                    transform, "a later instruction names that cache", (here, facts.seen(later, f"names {self.folder}"))
                )
            elif reason := self.objection(facts, run):
                yield Refusal(transform, reason, (here,))
            elif (edit := append_command(facts, run, text)) is None:
                yield Refusal(transform, "nothing can be appended to this script", (here,))
            else:
                yield Rewrite(
                    transform,
                    summary=f"{self.what} goes in the layer that brought it",
                    safety=Safety.SAFE,
                    edits=(edit,),
                    evidence=(here,),
                    changes=(Change(Aspect.COMMANDS, added=commands_in(text)),),
                )
