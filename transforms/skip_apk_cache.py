"""Install Alpine packages without keeping the index.

Why: `apk add --no-cache` fetches the index for the install alone; `apk update` leaves it in the layer.
Refuses: Nothing; a RUN that deletes the index itself, or mounts a cache over it, is left as it is.
Source: Alpine's wiki, "Alpine Package Keeper"; hadolint DL3019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.contract import command_entry
from optimizer.dockerfile.shell import subcommand
from optimizer.layers import flag_after, remove_step
from optimizer.rewrite import Aspect, Change, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts

_CACHE = "/var/cache/apk"
_FLAG = "--no-cache"


class SkipApkCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3019",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite]:
        for run in facts.shipped_runs():
            script = facts.script(run)
            if script is None or not facts.is_editable(run):
                continue
            if facts.deletes(run, _CACHE) or facts.is_mounted(run, _CACHE) or "/etc/apk/cache" in document.source.text:
                continue
            adds = [c for c in script.commands if c.name == "apk" and subcommand(c) == "add" and not _is_cacheless(c)]
            for command in adds:
                yield self._rewrite(facts, run, command)

    def _rewrite(self, facts: Facts, run: Instruction, command: Command) -> Rewrite:
        edits, text = flag_after(facts, run, command, "add", _FLAG)
        removed = [command_entry(command)]
        summary = "packages are installed without keeping the index"
        update = _update_before(facts, run, command)
        if update is not None and (edit := remove_step(facts, run, update)) is not None:
            edits = (edit, *edits)
            removed.append(command_entry(update))
            summary += ", which `apk update` left behind"
        return Rewrite(
            self,
            summary=summary,
            safety=Safety.SAFE,
            edits=edits,
            evidence=(facts.seen_command(run, command, "keeps the index in the layer"),),
            changes=(Change(Aspect.COMMANDS, removed=tuple(removed), added=(text,)),),
        )


def _is_cacheless(command: Command) -> bool:
    return any(arg in (_FLAG, "--cache-dir", "--no-network") or arg.startswith("--cache-dir=") for arg in command.args)


def _update_before(facts: Facts, run: Instruction, command: Command) -> Command | None:
    """An `apk update` whose only use is the first install behind it: no later RUN of the file installs from its index."""
    script = facts.script(run)
    before = [c for c in (script.commands if script else ()) if c.name == "apk" and c.span < command.span]
    if not before or subcommand(before[-1]) not in ("update", "-U") or len(before[-1].args) != 1:
        return None
    return before[-1]
