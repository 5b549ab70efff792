"""Cleaning up behind a package manager, right behind the install that made the cache: what the `clean-...-cache` transforms
share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.facts.commands import deleted
from optimizer.facts.garbage import why_kept
from optimizer.facts.tools import taken_away
from optimizer.layers import as_run, commands_in, run_behind
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.transform import Transform


@dataclass(frozen=True, slots=True)
class PackageCache:
    """A cache that a package manager leaves in the layer.

    `tool` is the package manager's program. `fills` recognises the commands that fill the cache, `command` empties it (given
    the command that filled it), `is_emptied` tells whether a RUN does so already, `objection` what speaks against emptying it,
    if anything. `folders` are the absolute folders that the cache can lie in, `word` one that a later instruction would name
    it by, and `results` the paths that a command installs into, where it is not the whole system.
    """

    what: str
    tool: str
    fills: Callable[[Command], bool]
    command: Callable[[Command], str]
    is_emptied: Callable[[Facts, Instruction], bool]
    objection: Callable[[Facts, Instruction], str | None] = lambda _facts, _run: None
    folders: tuple[str, ...] = ()
    word: str = ""
    results: Callable[[Placed], tuple[str, ...]] = lambda _placed: ()

    def rewrites(self, transform: Transform, facts: Facts) -> Iterator[Rewrite | Refusal]:
        """Empty the cache behind the last command that fills it, in every shipped RUN that does."""
        for run in facts.shipped_runs():
            filling = [p for p in facts.placed(run) or () if self.fills(p.command)]
            if not filling or self.is_emptied(facts, run):
                continue
            if self.folders and all(facts.is_mounted(run, f) for f in self.folders) and not facts.has_cache_mount(run):
                continue
            yield self._proposal(transform, facts, run, filling)

    def _proposal(self, transform: Transform, facts: Facts, run: Instruction, filling: list[Placed]) -> Rewrite | Refusal:
        last = filling[-1].command
        here = facts.seen_command(run, filling[0].command, f"leaves {self.what} in the layer")
        if facts.has_cache_mount(run):
            return Refusal(transform, "emptying the cache would empty the mount that other builds share", (here,))
        if any(facts.is_mounted(run, folder) for folder in self.folders):
            return Refusal(transform, "a mount keeps that cache out of the layer, or another one like it", (here,))
        same = next((p for p in _behind(facts, run, last) if self.word and self.word in str(p.command)), None)
        if same is not None:
            seen = facts.seen_command(run, same.command, f"names {self.word}")
            return Refusal(transform, "a later command names that cache", (here, seen))
        if self.word and (later := facts.names_later(run, self.word)) is not None:
            return Refusal(transform, "a later instruction names that cache", (here, facts.seen(later, f"names {self.word}")))
        if reason := self.objection(facts, run):
            return Refusal(transform, reason, (here,))
        for placed in filling:
            names = frozenset({self.tool, placed.command.name or self.tool})
            kept = why_kept(facts, run, placed, self.results(placed), self.folders, names)
            if kept is not None:
                return Refusal(transform, kept[0], kept[1])
        if (gone := next((g for p in filling if (g := taken_away(facts, run, p.command, last)) is not None), None)) is not None:
            return Refusal(transform, f"`{self.tool}` is taken away in the same statement", (here, gone))
        text = as_run(last, self.command(last))
        edit = run_behind(facts, run, last, text)
        if edit is None:
            return Refusal(transform, "nothing can be said behind the install in this script", (here,))
        return Rewrite(
            transform,
            summary=f"{self.what} goes in the layer that brought it",
            safety=Safety.SAFE,
            edits=(edit,),
            evidence=(here,),
            changes=(Change(Aspect.COMMANDS, added=commands_in(text)),),
        )


def deletes_asked(facts: Facts, run: Instruction, question: str) -> bool:
    """Whether a RUN deletes the folder that a package manager names when it is asked: `rm -rf "$(yarn cache dir)"`."""
    return any(command.name == "rm" and any(question in word.raw for word in command.words) for command in facts.commands(run))


def _behind(facts: Facts, run: Instruction, command: Command) -> tuple[Placed, ...]:
    """The commands of a RUN behind one of them, but those that delete."""
    commands = facts.placed(run) or ()
    return tuple(p for p in commands if p.command.span.start > command.span.start and not deleted((p,)))
