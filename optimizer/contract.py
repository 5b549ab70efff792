"""The run-time contract: what an image promises, and the check that a rewrite kept all of it but what it declared.

It is checked twice: entry by entry over the whole file (`breaches`), and as the configuration that the image ends up with, what
its base sets included (`broken_promises`): a rewrite that moves instructions to another stage has to come out the same.

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


# What an image has one of.
_SINGLE = frozenset(
    {Aspect.USER, Aspect.WORKDIR, Aspect.ENTRYPOINT, Aspect.CMD, Aspect.HEALTHCHECK, Aspect.STOPSIGNAL, Aspect.AUTHOR}
)


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


def promises(facts: Facts) -> dict[Aspect, dict[str, str]]:
    """The configuration that the target's image ends up with, by aspect; one entry a variable, label, port or volume."""
    if facts.target is None:
        return {}
    base = facts.image(facts.target)
    state = facts.end_state(facts.target)
    found: dict[Aspect, dict[str, str]] = {aspect: {} for aspect in Aspect}
    if base is not None:
        found[Aspect.ENV] |= {name: value or "(by the base)" for name, value in base.env.items()}
        found[Aspect.VOLUME] |= dict.fromkeys(base.volumes, "")
        found[Aspect.USER] |= {"": base.user} if base.user else {}
        found[Aspect.WORKDIR] |= {"": base.workdir} if base.workdir else {}
        found[Aspect.ENTRYPOINT] |= {"": exec_entry(base.start)} if base.start else {}
        found[Aspect.CMD] |= {"": exec_entry(base.command)} if base.command else {}
    for stage in reversed(facts.shipped):
        for instruction in stage.body:
            _promise(facts, instruction, found)
    if state.workdir:
        found[Aspect.WORKDIR] = {"": state.workdir}
    return found


def _promise(facts: Facts, instruction: Instruction, found: dict[Aspect, dict[str, str]]) -> None:
    """Enter what one instruction sets, over what stands before it."""
    keyword, aspect = instruction.keyword, _ASPECTS[instruction.keyword]
    state = facts.state(instruction)
    if keyword in ("ENV", "LABEL"):
        for pair in instruction.pairs:
            found[aspect][pair.name] = state.expanded(pair.value or "") or f"{pair.value}"
    elif keyword in ("EXPOSE", "VOLUME"):
        found[aspect] |= {state.expanded(word.text) or word.text: "" for word in instruction.words}
    elif keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK", "STOPSIGNAL", "USER", "MAINTAINER"):
        words = instruction.exec_form
        found[aspect] = {"": exec_entry(words) if words is not None else plain_entry(instruction)}
        if keyword == "ENTRYPOINT" and not any(
            i.keyword == "CMD" for s in facts.shipped for i in s.body if s is facts.document.stage_of(instruction)
        ):
            found[Aspect.CMD] = {}


def broken_promises(before: Facts, after: Facts, rewrites: Iterable[Rewrite]) -> list[str]:
    """What differs between the configurations of two images beyond what `rewrites` declare, in words."""
    declared: dict[Aspect, set[str]] = {aspect: set() for aspect in Aspect}
    implied: set[Aspect] = set()
    for rewrite in rewrites:
        implied |= rewrite.implies & rewrite.transform.meta.may_change
        for change in rewrite.changes:
            both = set(change.removed) & set(change.added)
            declared[change.aspect] |= {text for text in (*change.removed, *change.added) if text not in both}
    old, new = promises(before), promises(after)
    found = []
    for aspect, entries_before in old.items():
        names = {text.partition("=")[0] for text in declared[aspect]}
        is_single = aspect in implied or (aspect in _SINGLE and bool(declared[aspect]))
        for name in dict.fromkeys((*entries_before, *new[aspect])):
            if entries_before.get(name) != new[aspect].get(name) and name not in names and not is_single:
                was, now = entries_before.get(name, "not set"), new[aspect].get(name, "not set")
                found.append(f"the image's {aspect.value} {name}".rstrip() + f" changed from {was} to {now}")
    return found


def plain_entry(instruction: Instruction) -> str:
    """FROM, USER and the like as the contract writes them: flags and arguments with single blanks between."""
    flags = "".join(f"--{f.name}={f.value} " for f in instruction.flags)
    return f"{flags}{' '.join(instruction.value.split())}"


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


def entries(facts: Facts, instruction: Instruction) -> tuple[Aspect, tuple[str, ...]]:
    """The aspect that an instruction belongs to, and its entries in the contract."""
    stage = facts.document.stage_of(instruction)
    return _ASPECTS[instruction.keyword], tuple(text for text, _ in _entries(facts, stage, instruction))


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
    return [(plain_entry(instruction), name)]


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
