"""Install production dependencies only, where nothing in the image uses the others.

Why: Test runners, linters and compilers are often the larger part of node_modules; an image that only starts the application
carries and patches them for nothing.
Refuses: RUNs that build or test, start commands and sources that use a development dependency, scripts that run at every
install and need one.
Source: npm's documentation, "npm ci", --omit.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.facts.manifests import Application
from optimizer.facts.node import is_project_install
from optimizer.facts.node_packages import development, development_in_scripts, development_use
from optimizer.layers import flag_after
from optimizer.rewrite import Aspect, Change, Check, FileChange, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Project
    from optimizer.rewrite import Evidence

# What says, in options or variables, which dependencies are installed.
_TOLD = re.compile(r"^--(omit|include|production|only|prod|no-dev|dev)\b|^-D$")
_VARIABLES = re.compile(r"^(NODE_ENV|npm_config_(omit|include|production|only|dev))$", re.IGNORECASE)
# Commands behind the install that take nothing of node_modules.
_APART = frozenset(
    """echo rm chmod chown mkdir ln cp mv touch ls cd apt-get apt apk useradd groupadd adduser addgroup sed true set curl
    wget""".split()
)
# What runs the program of a package that it is told, and the words by which it is asked to.
_RUNNERS = frozenset({"npx", "bunx", "pnpx", "npm", "yarn", "pnpm"})
_VERBS = frozenset({"exec", "x", "dlx", "run"})


class OmitDevDependencies:
    meta = Meta.of(__name__, phase=Phase.COMMANDS, may_change={Aspect.COMMANDS}, changes_files={FileChange.DEVELOPMENT})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002 - the protocol's
        for run in facts.shipped_runs():
            for placed in facts.placed(run) or ():
                if placed.command.name != "npm" or not is_project_install(placed) or not facts.is_editable(run):
                    continue
                project = Application(facts, run).project(placed, "package.json")
                if project is not None and development(project) and not _is_told(facts, run, placed, project):
                    yield self._proposal(facts, run, placed, project)

    def _proposal(self, facts: Facts, run: Instruction, placed: Placed, project: Project) -> Rewrite | Refusal:
        assert facts.target is not None
        command = placed.command
        here = facts.seen_command(run, command, "installs development dependencies too")
        if (user := _later_use(facts, facts.target, run)) is not None:
            what = "a trigger" if user.keyword == "ONBUILD" else "a later RUN" if user.keyword == "RUN" else "another stage"
            return Refusal(self, f"{what} may use development dependencies", (here, facts.seen(user, "may use them")))
        application = facts.application(facts.target)
        if (anything := _starts_anything(facts)) is not None:
            return Refusal(self, "what is started stands with whoever runs the image, not in it", (here, anything))
        ignores = "--ignore-scripts" in command.args
        used = development_use(application, project) or development_in_scripts(project, ignores_scripts=ignores)
        if used is not None:
            return Refusal(self, used.claim, (here, *used.evidence))
        manifest = project.source("package.json")
        seen = application.application.line(manifest, '"devDependencies"', "are what only development needs")
        read = Check("no source loads a package that only development has", holds=application.is_read or None)
        decision = decide(Safety.UNSAFE, (facts.context_check(), read))
        verb = next(arg for arg in command.args if not arg.startswith("-"))
        edits, text = flag_after(facts, run, command, verb, "--omit=dev")
        return Rewrite(
            self,
            summary=f"{_plural(len(development(project)))} and what that brings along stay out of the image",
            safety=decision.safety,
            edits=edits,
            evidence=(here, seen, *decision.evidence),
            changes=(Change(Aspect.COMMANDS, removed=(str(command),), added=(text,)),),
            unknown=(*decision.unknown, "nobody tests or builds in this image (docker run ... npm test)"),
            held=decision.held,
        )


def _plural(count: int) -> str:
    return f"{count} development {'dependency' if count == 1 else 'dependencies'}"


def _starts_anything(facts: Facts) -> Evidence | None:
    """The line by which the image starts whatever program of a package it is told; its base, where it starts nothing itself."""
    assert facts.target is not None
    if not facts.starts_something:
        return facts.seen(facts.target.base, "is its base, and nothing here starts anything")
    started = facts.application(facts.target).started
    runners = (s for s in started if posixpath.basename(s.words[0] if s.words else "") in _RUNNERS)
    return next((s.seen for s in runners if all(word.startswith("-") or word in _VERBS for word in s.words[1:])), None)


def _is_told(facts: Facts, run: Instruction, placed: Placed, project: Project) -> bool:
    """Whether something says already which dependencies are installed."""
    variables = (*facts.state(run).variables, *(word.partition("=")[0] for word in placed.command.sets))
    by_file = re.search(r"^\s*(omit|include|production|only|dev)\s*=", project.read(".npmrc") or "", re.MULTILINE)
    return (
        any(_TOLD.search(arg) for arg in placed.command.args)
        or any(_VARIABLES.match(name) for name in variables)
        or by_file is not None
    )


def _later_use(facts: Facts, stage: Stage, run: Instruction) -> Instruction | None:
    """What may use node_modules from the install on: a RUN, a trigger, a COPY or a mount out of this stage."""
    behind = facts.behind(run)
    if trigger := next((i for i in behind if i.keyword == "ONBUILD"), None):
        return trigger
    for later in (run, *(i for i in behind if i.keyword == "RUN")):
        commands = facts.placed(later)
        if commands is None or later.exec_form is not None or any(not _is_apart(p, is_install=later is run) for p in commands):
            return later
    for other in facts.document.stages:
        for instruction in other.body:
            names = [f.value for f in instruction.flags if f.name == "from"]
            names += [m.options["from"] for m in instruction.mounts if "from" in m.options]
            if any(name and facts.document.stage_named(name) in (stage, *stage.ancestry) for name in names):
                return instruction
    return None


def _is_apart(placed: Placed, *, is_install: bool) -> bool:
    """Whether a command takes nothing of node_modules."""
    command = placed.command
    if command.name in ("npm", "yarn", "pnpm"):
        is_cache = command.args[:1] in (("cache",), ("config",), ("--version",), ("-v",))
        is_global = any(arg in ("-g", "--global") for arg in command.args)
        return is_cache or is_global or (is_install and is_project_install(placed))
    return command.name in _APART or command.name == ""
