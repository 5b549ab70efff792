"""The run-time contract: what an image promises, and the check that a rewrite kept all of it but what it declared.

Entries are kept in order, so a rewrite that swaps two COPYs or two commands breaks the contract too; a command's entry
carries the user and the folder that it runs in, so that moving it across a USER or a WORKDIR shows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import from_words
from optimizer.rewrite import Aspect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.rewrite import Rewrite

Entry = tuple[str, str]
RuntimeContract = dict[Aspect, tuple[Entry, ...]]

_ASPECTS = {
    "FROM": Aspect.BASE,
    "USER": Aspect.USER,
    "WORKDIR": Aspect.WORKDIR,
    "ENV": Aspect.ENV,
    "ARG": Aspect.ENV,
    "ENTRYPOINT": Aspect.ENTRYPOINT,
    "CMD": Aspect.CMD,
    "EXPOSE": Aspect.EXPOSE,
    "VOLUME": Aspect.VOLUME,
    "LABEL": Aspect.LABEL,
    "MAINTAINER": Aspect.AUTHOR,
    "HEALTHCHECK": Aspect.HEALTHCHECK,
    "STOPSIGNAL": Aspect.STOPSIGNAL,
    "SHELL": Aspect.SHELL,
    "ONBUILD": Aspect.ONBUILD,
    "COPY": Aspect.COPIES,
    "ADD": Aspect.COPIES,
    "RUN": Aspect.COMMANDS,
}


def contract(facts: Facts) -> RuntimeContract:
    """The contract of every stage of the document, one after the other."""
    found: dict[Aspect, list[Entry]] = {aspect: [] for aspect in Aspect}
    for stage in facts.document.stages:
        for instruction in stage.instructions:
            found[_ASPECTS[instruction.keyword]] += _entries(facts, stage, instruction)
    return {aspect: tuple(entries) for aspect, entries in found.items()}


def breaches(before: RuntimeContract, after: RuntimeContract, rewrites: Iterable[Rewrite]) -> list[str]:
    """What differs between two contracts beyond what `rewrites` declare, in words; empty if the contract holds."""
    rewrites = tuple(rewrites)
    removed: Counter[tuple[Aspect, str]] = Counter()
    added: Counter[tuple[Aspect, str]] = Counter()
    found = []
    for rewrite in rewrites:
        for change in rewrite.changes:
            if change.aspect not in rewrite.transform.meta.may_change:
                found.append(f"{rewrite.name} may not change the {change.aspect.value}")
            removed.update((change.aspect, text) for text in change.removed)
            added.update((change.aspect, text) for text in change.added)
    for aspect in Aspect:
        minus = Counter({text: n for (a, text), n in removed.items() if a is aspect})
        plus = Counter({text: n for (a, text), n in added.items() if a is aspect})
        found += (f"the {aspect.value} changed: {what}" for what in _differences(before[aspect], after[aspect], minus, plus))
    return found


def command_entry(command: Command) -> str:
    """A command as the contract writes it: its words with single blanks between."""
    return str(command)


def copy_entry(instruction: Instruction) -> str:
    """A COPY or ADD as the contract writes it."""
    flags = (f"--{f.name}={f.value}" if f.value is not None else f"--{f.name}" for f in instruction.flags)
    return copy_text(instruction.keyword, *flags, *(word.text for word in instruction.words))


def copy_text(keyword: str, *words: str) -> str:
    """The contract's entry of a COPY or ADD with these flags, sources and destination."""
    return " ".join((keyword, *words))


def exec_entry(words: Iterable[str]) -> str:
    """The exec form of CMD or ENTRYPOINT as the contract writes it."""
    return f"exec {list(words)!r}"


def _entries(facts: Facts, stage: Stage, instruction: Instruction) -> list[Entry]:
    name = f"{stage.index}"
    keyword = instruction.keyword
    if keyword == "RUN":
        return _commands(facts, instruction, name)
    if keyword in ("COPY", "ADD"):
        bodies = "".join(facts.document.source.text[h.body.start : h.body.end] for h in instruction.heredocs)
        return [(copy_entry(instruction), f"{name} {facts.state(instruction).path(instruction.destination)}{bodies}")]
    if keyword in ("CMD", "ENTRYPOINT") and instruction.exec_form is not None:
        return [(exec_entry(instruction.exec_form), name)]
    if keyword in ("ENV", "LABEL", "ARG"):
        return [(f"{pair.name}={pair.value}", name) for pair in instruction.pairs]
    flags = "".join(f"--{f.name}={f.value} " for f in instruction.flags)
    return [(f"{flags}{' '.join(instruction.value.split())}", name)]


def _commands(facts: Facts, run: Instruction, name: str) -> list[Entry]:
    state = facts.state(run)
    flags = " ".join(f"--{f.name}={f.value}" for f in run.flags)
    place = f"{name} {state.user} {state.workdir} {flags}"
    script = facts.script(run)
    if script is None:
        bodies = "".join(facts.document.source.text[h.body.start : h.body.end] for h in run.heredocs)
        return [(" ".join((run.value + bodies).split()), place)]
    if run.exec_form is not None:
        return [(command_entry(command), f"{place} exec") for command in from_words(run.exec_form).commands]
    return [(command_entry(command), place) for command in script.commands]


def _became(old: str, new: str | None) -> str:
    if new is None:
        return f'"{old}" is gone'
    return f'"{old}" runs or stands elsewhere' if old == new else f'"{old}" became "{new}"'


def _differences(before: tuple[Entry, ...], after: tuple[Entry, ...], minus: Counter[str], plus: Counter[str]) -> list[str]:
    """What stands against `after` being `before` without `minus` and with `plus`, in the same order; one line at most each."""
    at = 0
    found = []
    for entry in before:
        while at < len(after) and after[at] != entry and plus[after[at][0]] > 0:
            plus[after[at][0]] -= 1
            at += 1
        if at < len(after) and after[at] == entry:
            at += 1
        elif minus[entry[0]] > 0:
            minus[entry[0]] -= 1
        else:
            return [_became(entry[0], after[at][0] if at < len(after) else None)]
    for entry in after[at:]:
        if plus[entry[0]] > 0:
            plus[entry[0]] -= 1
        else:
            return [f'"{entry[0]}" is new']
    found += [f'"{text}" was to go and is still there, or never was' for text in +minus]
    found += [f'"{text}" was to come and is missing' for text in +plus]
    return found
