"""Install Python packages without keeping the downloads.

Why: pip keeps every wheel that it downloads in ~/.cache/pip, and the layer keeps it too; nothing reads it again.
Refuses: A cache mount, PIP_NO_CACHE_DIR of any value (its meaning has changed between versions), a RUN that deletes the cache,
and a pip older than 6, to which the option is an error.
Source: pip's documentation, "Caching"; hadolint DL3042.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.contract import command_entry
from optimizer.facts.commands import deleted
from optimizer.facts.python import program
from optimizer.facts.tools import knows_option
from optimizer.layers import flag_after
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts

_FLAG = "--no-cache-dir"
_PIP_CACHE = re.compile(r"pip|\.cache/?$|^/root/?$|^/home/\w+/?$")
_CONFIGURED = re.compile(r"PIP_NO_CACHE_DIR|pip3? config set|pip\.conf|no-cache-dir\s*[=:]")


class SkipPipCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3042",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        for run in facts.shipped_runs():
            script = facts.script(run)
            if script is None or not facts.is_editable(run):
                continue
            for command in script.commands:
                if not _is_pip_install(command) or _is_cacheless(command) or _is_cleaned(facts, run):
                    continue
                here = facts.seen_command(run, command, "keeps what pip downloads")
                if (later := _later_use(facts, run)) is not None:
                    yield Refusal(self, "a later instruction names the cache", (here, facts.seen(later, "names it")))
                    continue
                if reason := _why_not(facts, run, command):
                    yield Refusal(self, reason, (here,))
                    continue
                decision = decide(Safety.SAFE, (knows_option(facts, run, command, "pip", _FLAG),))
                if decision.failed is not None:
                    yield Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
                    continue
                edits, text = flag_after(facts, run, command, "install", _FLAG)
                yield Rewrite(
                    self,
                    summary="pip keeps no downloads in the layer",
                    safety=decision.safety,
                    edits=edits,
                    evidence=(here, *decision.evidence),
                    changes=(Change(Aspect.COMMANDS, removed=(command_entry(command),), added=(text,)),),
                    unknown=decision.unknown,
                    held=decision.held,
                )


def _later_use(facts: Facts, run: Instruction) -> Instruction | None:
    """The first instruction behind `run` that names a cache, other than to delete it: that cannot take it out of the layer."""
    for later in facts.document.instructions[run.index + 1 :]:
        commands = facts.placed(later) if later.keyword == "RUN" else None
        named = [p for p in commands or () if ".cache" in str(p.command)]
        if ".cache" in facts.document.raw(later) and not (named and all(deleted((p,)) for p in named)):
            return later
    return None


def _is_pip_install(command: Command) -> bool:
    name, args = program(command)
    verb = next((arg for arg in args if not arg.startswith("-")), None)
    return re.fullmatch(r"pip[\d.]*", name) is not None and verb == "install"


def _is_cacheless(command: Command) -> bool:
    return any(arg.startswith(("--no-cache", "--cache-dir")) for arg in command.args)  # pip takes abbreviations


def _is_cleaned(facts: Facts, run: Instruction) -> bool:
    gone = deleted(facts.placed(run) or ())
    return any(re.search(r"^cache:pip$|/\.cache(/pip)?(/\*)?$", touched.path) for touched in gone)


def _why_not(facts: Facts, run: Instruction, command: Command) -> str | None:
    state = facts.state(run)
    if any(_PIP_CACHE.search(target) for target in facts.cache_mounts(run)):
        return "a cache mount keeps the downloads out of the layer already"
    if "PIP_NO_CACHE_DIR" in state.variables or any("PIP_NO_CACHE_DIR" in word for word in command.sets):
        return "PIP_NO_CACHE_DIR is set: it decides, and means different things in different versions of pip"
    if _CONFIGURED.search(_text_before(facts, run)):
        return "pip has been configured before: its settings decide"
    if "PIP_CACHE_DIR" in state.variables:
        return "PIP_CACHE_DIR says where the downloads go: somebody wants them"
    return None


def _text_before(facts: Facts, run: Instruction) -> str:
    """The RUNs and COPYs of the stage up to and with `run`."""
    return "\n".join(facts.document.raw(i) for i in facts.up_to(run, "RUN", "COPY", "ADD"))
