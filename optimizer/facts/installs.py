"""Which dependency install a command is, and what it reads: every ecosystem's reader is asked."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from optimizer.facts import go, node, python
from optimizer.facts.manifests import Inputs
from optimizer.facts.npm_lock import LOCKS, lock_in_step
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application, NeedsSources

READERS = (python.install_inputs, node.install_inputs, go.install_inputs)


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What the dependency install `placed` reads, or None where it is none that is known."""
    found = next((found for reader in READERS if (found := reader(application, placed)) is not None), None)
    return _with_mended_lock(application, found) if isinstance(found, Inputs) else found


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
