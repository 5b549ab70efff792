"""Whether what a command leaves behind is garbage: a cache that is the purpose of its RUN, or that is used later, is not."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from optimizer.facts.commands import Touched, covers, deleted
from optimizer.facts.sources import files_named
from optimizer.facts.started import runs_a_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts
    from optimizer.rewrite import Evidence

# Commands that use nothing of what was installed.
_MAKES_NOTHING = frozenset({"", *"rm cd echo true : set mkdir ls find apt-get apk npm yarn pnpm".split()})
# Options by which a package manager works from what it has downloaded before.
_WORKS_FROM_CACHE = {
    **dict.fromkeys(("npm", "yarn", "pnpm"), frozenset({"--offline", "--prefer-offline"})),
    **dict.fromkeys(("dnf", "yum", "microdnf"), frozenset({"-C", "--cacheonly"})),
    "zypper": frozenset({"--no-refresh"}),
}


def why_kept(
    facts: Facts, run: Instruction, filling: Placed, results: Iterable[str], folders: Iterable[str], names: frozenset[str]
) -> tuple[str, tuple[Evidence, ...]] | None:
    """Why the cache that `filling` fills in `run` has to stay, with the lines; None where it is garbage.

    `results` are the paths that the command installs into, `folders` the absolute folders of its cache, `names` the programs
    that use it.
    """
    here = facts.seen_command(run, filling.command, "fills the cache")
    for reason, seen in _purposes(facts, run, filling, tuple(results)):
        return reason, (here, seen)
    for reason, seen in _uses(facts, run, tuple(folders), names):
        return reason, (here, seen)
    return None


def _purposes(facts: Facts, run: Instruction, filling: Placed, results: tuple[str, ...]) -> Iterator[tuple[str, Evidence]]:
    """What says that filling the cache is what the command is for: what it installs does not stay."""
    commands = facts.placed(run) or ()
    behind = tuple(p for p in commands if p.command.span.start > filling.command.span.start)
    for path in results:
        gone: Touched | None = next((t for t in deleted(behind) if covers(t.path, path) or t.path == path), None)
        if gone is not None and not _is_used(behind, gone):
            seen = facts.seen_command(run, gone.command, f"deletes {posixpath.basename(path)} again")
            yield "what it installs is deleted again: filling the cache is its purpose", seen
        for mount in run.mounts:
            is_lost = mount.kind == "tmpfs" or (mount.kind == "bind" and {"rw", "readwrite"} & mount.options.keys())
            target = facts.state(run).path(mount.target) if mount.target else None
            if is_lost and target is not None and f"{path}/".startswith(f"{target.rstrip('/')}/"):
                seen = facts.seen(run, f"mounts {mount.target}, and what is written there does not stay")
                yield "what it installs does not stay in the image: filling the cache is its purpose", seen


def _is_used(behind: tuple[Placed, ...], gone: Touched) -> bool:
    """Whether something runs between an install and the deletion of what it installed: then that was its purpose."""
    between = (p.command for p in behind if p.command.span.start < gone.command.span.start)
    return any(command.name not in _MAKES_NOTHING or runs_a_script(command) for command in between)


def _uses(facts: Facts, run: Instruction, folders: tuple[str, ...], names: frozenset[str]) -> Iterator[tuple[str, Evidence]]:
    """What takes something out of the cache later, or somewhere else."""
    for instruction, command in every_command(facts):
        if command.name in names and _works_from_cache(command.name or "", command.args):
            yield "an install works from that cache", facts.seen_command(instruction, command, "works from the cache")
    if facts.target is not None:
        for started in facts.application(facts.target).programs:
            name = posixpath.basename(started.what or "")
            if name in names and (_works_from_cache(name, started.words) or _installs(started.words)):
                yield "an install works from that cache when the container starts", started.seen
    for later in (i for i in facts.behind(run) if i.keyword == "RUN"):
        for placed in facts.placed(later) or ():
            if any(folder in text for text in files_named(facts, later, placed) for folder in folders):
                seen = facts.seen_command(later, placed.command, "starts it")
                yield "a script of the build context names that cache", seen
    stage = facts.document.stage_of(run)
    for other in (i for i in facts.document.instructions if i.keyword == "COPY"):
        flag = other.flag("from")
        if flag is None or facts.document.stage_named(flag.value or "") is not stage:
            continue
        sources = [facts.end_state(stage).path(word.text) for word in other.words[:-1]]
        if any(source is not None and covers(source, folder) for source in sources for folder in folders):
            yield "another stage takes that cache", facts.seen(other, "copies the folder that it lies in")


def _works_from_cache(name: str, words: tuple[str, ...]) -> bool:
    return not _WORKS_FROM_CACHE.get(name, frozenset()).isdisjoint(words)


def _installs(words: tuple[str, ...]) -> bool:
    """Whether a command of a package manager installs: `npm ci`, a bare `yarn`."""
    plain = [word for word in words[1:] if not word.startswith("-")]
    return plain[:1] in ([], ["install"], ["i"], ["ci"], ["add"], ["update"])


def commands_up_to(facts: Facts, run: Instruction) -> Iterator[tuple[Instruction, Command]]:
    """The commands of `run` and of the RUNs before it, of its stage and of those that it builds on."""
    for instruction in facts.up_to(run, "RUN"):
        yield from ((instruction, command) for command in facts.commands(instruction))


def every_command(facts: Facts) -> Iterator[tuple[Instruction, Command]]:
    """The commands of every RUN, CMD and ENTRYPOINT that can be read, in file order."""
    for instruction in facts.document.instructions:
        if instruction.keyword in ("RUN", "CMD", "ENTRYPOINT"):
            yield from ((instruction, command) for command in facts.commands(instruction))
