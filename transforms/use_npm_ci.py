"""Install exactly what the lock file lists.

Why: `npm install` may take newer versions than the lock file names and rewrites it; `npm ci` installs the same every time.
Refuses: No lock file, or one that differs from package.json (there `npm ci` stops), packages named on the command line, and
node_modules that an earlier RUN has filled (`npm ci` deletes it first).
Source: npm's documentation, "npm ci".
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.contract import command_entry
from optimizer.dockerfile.edit import Edit
from optimizer.dockerfile.shell import subcommand
from optimizer.facts.manifests import Application
from optimizer.facts.node import LOCKS
from optimizer.facts.npm_lock import lock_in_step, lock_version
from optimizer.rewrite import Aspect, Change, Check, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed

# Options that `npm ci` understands as `npm install` does.
_SHARED = frozenset(
    """--omit --include --production --only --ignore-scripts --no-audit --audit --no-fund --fund --legacy-peer-deps
    --strict-peer-deps --no-optional --prefer-offline --no-progress --progress --loglevel --silent --quiet --verbose -q -s
    --unsafe-perm --install-strategy --force -f --no-bin-links --dev --registry --no-save""".split()
)


_MANIFEST = re.compile(r"package(-lock)?\.json|npm-shrinkwrap\.json|package\*|package-lock")
_LAST_NPM_6 = 14
_FIRST_NPM_CI = 10


class UseNpmCi:
    meta = Meta.of(__name__, phase=Phase.COMMANDS, may_change={Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        for run in facts.runs:
            for placed in (facts.placed(run) or ()) if facts.is_editable(run) else ():
                command = placed.command
                if command.name != "npm" or subcommand(command) not in ("install", "i"):
                    continue
                plain = [arg for arg in command.args if not arg.startswith("-")]
                if len(plain) == 1 and not any(arg in ("-g", "--global") for arg in command.args):
                    yield self._proposal(facts, run, placed)

    def _proposal(self, facts: Facts, run: Instruction, placed: Placed) -> Rewrite | Refusal:
        command = placed.command
        here = facts.seen_command(run, command, "may install other versions than those locked")
        odd = next((arg for arg in command.args if arg.startswith("-") and arg.partition("=")[0] not in _SHARED), None)
        if odd is not None:
            return Refusal(self, f"`npm ci` does not know {odd}", (here,))
        if facts.is_mounted(run, placed.path("node_modules") or "/"):
            return Refusal(self, "`npm ci` would empty node_modules, which a cache mount keeps", (here,))
        if (earlier := _filled_before(facts, run, placed)) is not None:
            return Refusal(
                self, "`npm ci` would delete the packages that are there before", (here, facts.seen(earlier, "brings them"))
            )
        if (earlier := _edited_before(facts, run, placed)) is not None:
            return Refusal(
                self, "package.json or the lock file is changed before the install", (here, facts.seen(earlier, "does so"))
            )
        folder = _folder(facts, run, placed)
        if folder is None:
            return Refusal(self, "package.json does not come from the build context before this RUN", (here,))
        in_step, claim = lock_in_step(facts.context, folder)
        manifest = facts.seen_in(posixpath.join(folder, "package.json"), claim)
        checks = (
            facts.context_check(),
            _reads_lock(facts, run, folder),
            Check(claim, in_step, (manifest,)),
            _lock_is_there(facts, run, placed, folder),
        )
        decision = decide(Safety.SAFE, checks)
        if decision.failed:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
        verb = next(word for word in command.words if word.text in ("install", "i"))
        words = [*command.assignments, *("ci" if word is verb else word.raw for word in command.words)]
        text = " ".join([*words, *(f"{r.operator}{r.target or ''}" for r in command.redirects)])
        return Rewrite(
            self,
            summary="npm installs what package-lock.json lists, no more and no newer",
            safety=decision.safety,
            edits=(Edit(facts.source_span(run, verb.span), "ci"),),
            evidence=(here, *decision.evidence),
            changes=(Change(Aspect.COMMANDS, removed=(command_entry(command),), added=(text,)),),
            unknown=decision.unknown,
            held=decision.held,
        )


def _folder(facts: Facts, run: Instruction, placed: Placed) -> str | None:
    """The folder of the context whose package.json the command works on."""
    project = Application(facts, run).project(placed, "package.json")
    return project.folder if project is not None else None


def _lock_is_there(facts: Facts, run: Instruction, placed: Placed, folder: str) -> Check:
    """Whether the lock file is in the image when the command runs."""
    for copy in facts.copies_before(run):
        for name in LOCKS:
            source = posixpath.join(folder, name)
            if facts.context.is_file(source) and copy.brings(source) and copy.container_path(source) == placed.path(name):
                return Check(
                    "the lock file is copied before the install",
                    holds=True,
                    evidence=(facts.seen(copy.instruction, "copies it"),),
                )
    return Check("the lock file is not copied before the install", holds=False)


def _reads_lock(facts: Facts, run: Instruction, folder: str) -> Check:
    """Whether the npm of the image can read the lock file: npm 6 (Node 14 and older) knows no lockfileVersion 3."""
    base = facts.image(facts.document.stage_of(run))
    claim = "the npm of the image reads a lock file of this format"
    if base is None or base.name != "node":
        return Check(claim, holds=None)
    major = re.match(r"(\d+)", base.tag)
    if major is None:
        return Check(claim, holds=True)  # latest, lts, current
    version = lock_version(facts.context, folder)
    return Check(claim, holds=int(major[1]) > _LAST_NPM_6 or (version in (1, 2) and int(major[1]) >= _FIRST_NPM_CI))


def _commands_before(facts: Facts, run: Instruction, placed: Placed) -> Iterator[tuple[Instruction, Command]]:
    """The commands of earlier RUNs, and those before `placed` in the same one."""
    for earlier in facts.up_to(run, "RUN"):
        for other in facts.placed(earlier) or ():
            if earlier is not run or other.command.span < placed.command.span:
                yield earlier, other.command


def _filled_before(facts: Facts, run: Instruction, placed: Placed) -> Instruction | None:
    """An instruction that fills node_modules before `placed`: an install, or a COPY."""
    path = placed.path("node_modules") or "/"
    for copy in facts.copies_before(run):
        source = copy.locate(path)
        if source is not None and facts.context.kind(source) is not None:
            return copy.instruction
    for other in facts.up_to(run, "COPY", "ADD"):
        if other.flag("from") is not None and "node_modules" in other.value:
            return other
    for earlier, command in _commands_before(facts, run, placed):
        installs = command.name in ("npm", "yarn", "pnpm") and subcommand(command) in ("install", "i", "ci", "add")
        apart = earlier is run and "conditional" in command.guards & placed.command.guards  # the other branch
        if installs and not apart and not any(arg in ("-g", "--global") for arg in command.args):
            return earlier
    return None


def _edited_before(facts: Facts, run: Instruction, placed: Placed) -> Instruction | None:
    """A RUN that changes package.json or the lock file before `placed`."""
    for earlier, command in _commands_before(facts, run, placed):
        if command.name == "npm" and subcommand(command) in (
            "pkg",
            "version",
            "init",
            "uninstall",
            "update",
            "audit",
            "dedupe",
        ):
            return earlier
        if command.name not in ("echo", "cat", "ls", "test", "[") and _MANIFEST.search(str(command)):
            return earlier
    return None
