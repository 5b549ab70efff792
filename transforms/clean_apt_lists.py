"""Delete apt's package lists in the layer that downloaded them.

Why: A file that a later RUN deletes still takes its space in the earlier layer; the lists are some 20 MB.
Refuses: A later RUN, or a stage or trigger built on this one, that installs without its own update; a script that ends in a way
that nothing can follow.
Source: Docker's best practices, "apt-get"; hadolint DL3009.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import SHELLS
from optimizer.facts.commands import APT_LISTS, covers, deleted, is_apt
from optimizer.layers import append_command, as_run
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command, Script
    from optimizer.facts import Facts

_CALLS_APT = re.compile(r"(?<![\w./-])(apt|apt-get|aptitude|apt-cache|apt-file|rosdep|gdebi|tasksel)(?![\w./=-])")
# Files of the build context that a program of these names runs commands from.
_RECIPES = {"make": ("Makefile", "makefile", "GNUmakefile"), "npm": ("package.json",), "yarn": ("package.json",)}
_HARMLESS = ("clean", "autoclean", "distclean", "purge", "remove", "autoremove")
_CLEANUP = f"rm -rf {APT_LISTS}/*"


class CleanAptLists:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3009",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        for run in facts.shipped_runs():
            downloaded = _update(facts, run)
            if downloaded is None or _is_cleaned(facts, run, downloaded) or facts.is_mounted(run, APT_LISTS):
                continue
            here = facts.seen_command(run, downloaded, "downloads the lists and keeps them")
            if late := _first_install_without_update(facts, run):
                yield Refusal(
                    self, "a later RUN installs from these lists", (here, facts.seen(late, "has no update of its own"))
                )
                continue
            cleanup = as_run(downloaded, _CLEANUP)
            edit = append_command(facts, run, cleanup)
            if edit is None:
                yield Refusal(self, "nothing can be appended to this script", (here,))
                continue
            yield Rewrite(
                self,
                summary="the package lists are deleted in the layer that downloaded them",
                safety=Safety.SAFE,
                edits=(edit,),
                evidence=(here,),
                changes=(Change(Aspect.COMMANDS, added=(cleanup,)),),
                caveats=() if _starts(facts) else ("an image that is built on this one must run its own `apt-get update`",),
            )


def _starts(facts: Facts) -> bool:
    """Whether the image says what it starts: one that does not is likely a base for others."""
    return any(stage.last(keyword) is not None for stage in facts.shipped for keyword in ("CMD", "ENTRYPOINT"))


def _update(facts: Facts, run: Instruction) -> Command | None:
    """The last `apt-get update` of a RUN."""
    script = facts.script(run)
    return next((c for c in reversed(script.commands) if is_apt(c, "update")), None) if script else None


def _is_cleaned(facts: Facts, run: Instruction, update: Command) -> bool:
    gone = deleted(facts.placed(run) or ())
    return any(covers(t.path, APT_LISTS) and (t.command.span > update.span or t.command.span == update.span) for t in gone)


def _first_install_without_update(facts: Facts, run: Instruction) -> Instruction | None:
    """The first instruction behind `run`, in its stage or in one built on it, that may need the lists without updating them."""
    for instruction in facts.behind(run):
        if instruction.keyword in ("ONBUILD", "RUN", "CMD", "ENTRYPOINT") and _may_need_lists(facts, instruction):
            return instruction
        if instruction.keyword == "RUN" and _is_new_from(facts, instruction):
            break
    return None


def _may_need_lists(facts: Facts, instruction: Instruction) -> bool:
    """Whether an instruction may call apt for more than an update first: by name, or by a script of the build context."""
    text = facts.document.raw(instruction)
    script = facts.script(instruction) if instruction.keyword != "ONBUILD" else None
    if script is None:
        return _CALLS_APT.search(text) is not None or _runs_apt_script(facts, instruction, text.split())
    first = next((c for c in script.commands if _CALLS_APT.search(str(c)) and not is_apt(c, *_HARMLESS)), None)
    if first is not None:
        needs = [c for c in script.commands if _CALLS_APT.search(str(c)) and not is_apt(c, "update", *_HARMLESS)]
        is_sure = is_apt(first, "update") and (first.is_unconditional or all(first.guards <= c.guards for c in needs))
        return not is_sure or any(c.name == "exit" for c in script.commands)
    if _CALLS_APT.search(_without_data(script)) or any(_is_opaque(c) or _has_apt_recipe(facts, c) for c in script.commands):
        return True
    return _runs_apt_script(facts, instruction, [word.text for c in script.commands for word in c.words if word.text])


def _is_opaque(command: Command) -> bool:
    """Whether what a command runs is only known when it runs: a name in a variable, or a shell that reads a pipe."""
    if command.name is None or command.name == "eval":
        return True
    return command.name in SHELLS and "pipeline" in command.guards and all(arg.startswith("-") for arg in command.args)


def _has_apt_recipe(facts: Facts, command: Command) -> bool:
    """Whether a command runs what a file of the build context lists, and that file calls apt."""
    names = _RECIPES.get(command.name or "", ())
    found = (
        (facts.context.read(file) or "" for file in facts.context.walk() if posixpath.basename(file) in names) if names else ()
    )
    return any(_CALLS_APT.search(text) is not None for text in found)


def _is_new_from(facts: Facts, run: Instruction) -> bool:
    """Whether `run` certainly updates the lists, so that what stands behind it has new ones."""
    script = facts.script(run)
    updates = [c for c in (script.commands if script else ()) if is_apt(c, "update") and c.is_unconditional]
    return bool(updates) and script is not None and not any(c.name == "exit" for c in script.commands)


def _without_data(script: Script) -> str:
    """The heredocs of a script that a shell reads: what else stands in quotes is data."""
    reads = any(c.name in (*SHELLS, "eval", "xargs") for c in script.commands)
    return script.text if reads else ""


def _runs_apt_script(facts: Facts, instruction: Instruction, words: list[str]) -> bool:
    """Whether one of `words` is a script of the build context that calls apt."""
    return any(_CALLS_APT.search(text) for text in facts.scripts_started(instruction, words))
