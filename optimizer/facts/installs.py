"""Which dependency install a command is, and what it reads: every ecosystem's reader is asked."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from optimizer.facts import go, node, python
from optimizer.facts.manifests import Inputs
from optimizer.facts.node import LOCKS
from optimizer.facts.npm_lock import lock_in_step
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application, NeedsSources

ECOSYSTEMS = (python, node, go)


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What the dependency install `placed` reads, or None where it is none that is known."""
    answers = (ecosystem.install_inputs(application, placed) for ecosystem in ECOSYSTEMS)
    found = next((answer for answer in answers if answer is not None), None)
    return _with_mended_lock(application, found) if isinstance(found, Inputs) else found


def installs_by_name(command: Command) -> bool:
    """Whether a command installs only packages that it names, and so reads nothing of the application."""
    return any(ecosystem.installs_by_name(command) for ecosystem in ECOSYSTEMS)


def _with_mended_lock(application: Application, inputs: Inputs) -> Inputs:
    """`inputs`, with the doubt about a lock file that `npm install` mends, where the COPY behind it brings the old one back."""
    if inputs.what not in ("npm install", "npm i"):
        return inputs
    lock = next((file.source for file in inputs.files if posixpath.basename(file.source) in LOCKS), None)
    if lock is None or lock_in_step(application.context, posixpath.dirname(lock))[0]:
        return inputs
    claim = f"nothing needs {posixpath.basename(lock)} as `npm install` mends it: the COPY behind it brings the old one back"
    evidence = (application.facts.seen_in(lock, "differs from package.json, or may"),)
    return replace(inputs, checks=(*inputs.checks, Check(claim, holds=None, evidence=evidence)))
