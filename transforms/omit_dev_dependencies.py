"""Install production dependencies only, where nothing in the image uses the others.

Why: Test runners, linters and compilers are often the larger part of node_modules; an image that only starts the application
carries and patches them for nothing.
Refuses: RUNs that build or test, start commands and sources that use a development dependency, scripts that run at every
install and need one.
Source: npm's documentation, "npm ci", --omit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.facts.manifests import Application
from optimizer.facts.node import is_project_install
from optimizer.facts.node_packages import development, development_in_scripts, development_use
from optimizer.layers import flag_after
from optimizer.rewrite import Aspect, Change, Check, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Project

_OMITS = (
    "--omit=dev",
    "--production",
    "--only=production",
    "--only=prod",
    "--include=dev",
    "--production=false",
    "--prod",
    "--no-dev",
)


class OmitDevDependencies:
    meta = Meta.of(__name__, phase=Phase.COMMANDS, may_change={Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002 - the protocol's
        for run in facts.shipped_runs():
            for placed in facts.placed(run) or ():
                if placed.command.name != "npm" or not is_project_install(placed) or not facts.is_editable(run):
                    continue
                project = Application(facts, run).project(placed, "package.json")
                is_told = any(arg in _OMITS for arg in placed.command.args) or "NODE_ENV" in facts.state(run).variables
                if project is not None and development(project) and not is_told:
                    yield self._proposal(facts, run, placed, project)

    def _proposal(self, facts: Facts, run: Instruction, placed: Placed, project: Project) -> Rewrite | Refusal:
        assert facts.target is not None
        command = placed.command
        here = facts.seen_command(run, command, "installs development dependencies too")
        if (user := _later_use(facts, facts.target, run)) is not None:
            return Refusal(self, "a later RUN may use development dependencies", (here, facts.seen(user, "may use them")))
        application = facts.application(facts.target)
        if (used := development_use(application, project) or development_in_scripts(application, project)) is not None:
            return Refusal(self, used.claim, (here, *used.evidence))
        manifest = project.source("package.json")
        seen = application.application.line(manifest, '"devDependencies"', "are what only development needs")
        checks = [Check("nobody tests or builds in this image (docker run ... npm test)", holds=None), facts.context_check()]
        checks += [] if application.is_read else [Check("no source loads a package that only development has", holds=None)]
        decision = decide(Safety.SAFE, checks)
        verb = next(arg for arg in command.args if not arg.startswith("-"))
        edits, text = flag_after(facts, run, command, verb, "--omit=dev")
        return Rewrite(
            self,
            summary=f"{_plural(len(development(project)))} and what that brings along stay out of the image",
            safety=decision.safety,
            edits=edits,
            evidence=(here, seen, *decision.evidence),
            changes=(Change(Aspect.COMMANDS, removed=(str(command),), added=(text,)),),
            unknown=decision.unknown,
            held=decision.held,
        )


def _plural(count: int) -> str:
    return f"{count} development {'dependency' if count == 1 else 'dependencies'}"


def _later_use(facts: Facts, stage: Stage, run: Instruction) -> Instruction | None:
    """A RUN from the install on, or a COPY out of this stage, that uses what node_modules has."""
    for later in (run, *(i for i in facts.behind(run) if i.keyword == "RUN")):
        for placed in facts.placed(later) or ():
            name, args = placed.command.name, placed.command.args
            runs = name in ("npm", "yarn", "pnpm") and any(a in ("run", "test", "exec", "build", "t") for a in args[:2])
            if runs or name in ("npx", "tsc", "node", "make") or (name or "").startswith("node_modules/"):
                return later
        if facts.placed(later) is None:
            return later
    copied = (i for s in facts.document.stages for i in s.body if (f := i.flag("from")) is not None and f.value == stage.name)
    return next(copied, None)
