"""Install Alpine packages without keeping the index.

Why: `apk add --no-cache` fetches the index for the install alone; `apk update` leaves it in the layer.
Refuses: An index that a later RUN, or a stage built on this one, installs from without fetching its own, and an Alpine older
than 3.3, whose apk does not know the option. A RUN that deletes
the index itself, or mounts a cache over it, is left as it is.
Source: Alpine's wiki, "Alpine Package Keeper"; hadolint DL3019.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.contract import command_entry
from optimizer.dockerfile.shell import subcommand
from optimizer.facts.sources import files_named
from optimizer.facts.tools import knows_option
from optimizer.layers import flag_after, remove_step
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts

_CACHE = "/var/cache/apk"
_FLAG = "--no-cache"
_FETCHES = frozenset({"-U", "--update", "--update-cache"})
_HARMLESS = frozenset({"update", "del", "info", "cache", "audit", "stats", "version"})
_CALLS_APK = re.compile(r"(?<![\w./-])apk(?![\w./=-])")


class SkipApkCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3019",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        for run in facts.shipped_runs():
            script = facts.script(run)
            if script is None or not facts.is_editable(run):
                continue
            if _is_served(facts, run):
                continue
            adds = [c for c in script.commands if c.name == "apk" and subcommand(c) == "add" and not _is_cacheless(c)]
            for command in adds:
                yield self._proposal(facts, run, command)

    def _proposal(self, facts: Facts, run: Instruction, command: Command) -> Rewrite | Refusal:
        if _leaves_index(facts, run) and (late := next((i for i in facts.behind(run) if _needs_index(facts, i)), None)):
            here = facts.seen_command(run, command, "leaves the index")
            return Refusal(self, "a later instruction installs from this index", (here, facts.seen(late, "fetches none")))
        return self._rewrite(facts, run, command)

    def _rewrite(self, facts: Facts, run: Instruction, command: Command) -> Rewrite | Refusal:
        here = facts.seen_command(run, command, "keeps the index in the layer")
        decision = decide(Safety.SAFE, (knows_option(facts, run, command, "apk", _FLAG),))
        if decision.failed is not None:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
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
            safety=decision.safety,
            edits=edits,
            evidence=(here, *decision.evidence),
            changes=(Change(Aspect.COMMANDS, removed=tuple(removed), added=(text,)),),
            unknown=decision.unknown,
            held=decision.held,
        )


def _is_cacheless(command: Command) -> bool:
    return any(arg in (_FLAG, "--cache-dir", "--no-network") or arg.startswith("--cache-dir=") for arg in command.args)


def _leaves_index(facts: Facts, run: Instruction) -> bool:
    """Whether `run` fetches the index and keeps it: what `apk add` alone does not do."""
    script = facts.script(run)
    commands = [c for c in (script.commands if script else ()) if c.name == "apk" and not _is_cacheless(c)]
    return any(subcommand(c) == "update" or _FETCHES.intersection(c.args) for c in commands)


def _needs_index(facts: Facts, instruction: Instruction) -> bool:
    """Whether an instruction installs from an index that is there already, as far as that can be told."""
    if instruction.keyword not in ("RUN", "CMD", "ENTRYPOINT", "ONBUILD"):
        return False
    script = facts.script(instruction) if instruction.keyword != "ONBUILD" else None
    if script is None:
        text = facts.document.raw(instruction)
        return _CALLS_APK.search(text) is not None or any(_CALLS_APK.search(t) for t in facts.scripts_started(instruction))
    harmless = _HARMLESS | {"add"} if _is_rewritten(facts, instruction) else _HARMLESS
    if any(c.name == "apk" and subcommand(c) == "update" for c in script.commands):
        harmless |= {"add", "upgrade"}
    for command in script.commands:
        is_fed = _is_cacheless(command) or _FETCHES.intersection(command.args) or subcommand(command) in harmless
        if command.name is None or (_CALLS_APK.search(str(command)) and not (command.name == "apk" and is_fed)):
            return True
    texts = (text for p in facts.placed(instruction) or () for text in files_named(facts, instruction, p))
    return any(_CALLS_APK.search(text) for text in texts)


def _is_rewritten(facts: Facts, run: Instruction) -> bool:
    """Whether the installs of `run` get the flag, if they have it not."""
    return run in facts.shipped_runs() and facts.is_editable(run) and not run.pragmas and not _is_served(facts, run)


def _is_served(facts: Facts, run: Instruction) -> bool:
    """Whether `run` keeps no index already, or keeps it on purpose."""
    return facts.deletes(run, _CACHE) or facts.is_mounted(run, _CACHE) or "/etc/apk/cache" in facts.document.source.text


def _update_before(facts: Facts, run: Instruction, command: Command) -> Command | None:
    """The `apk update` directly before `command`, which fetches the index itself from now on."""
    script = facts.script(run)
    before = [c for c in (script.commands if script else ()) if c.name == "apk" and c.span < command.span]
    if not before or subcommand(before[-1]) not in ("update", "-U") or len(before[-1].args) != 1:
        return None
    return before[-1]
