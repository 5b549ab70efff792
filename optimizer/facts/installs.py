"""Which dependency install a command is, and what it reads: every ecosystem's reader is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.facts import go, node, python

if TYPE_CHECKING:
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application, Inputs, NeedsSources

READERS = (python.install_inputs, node.install_inputs, go.install_inputs)


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What the dependency install `placed` reads, or None where it is none that is known."""
    return next((found for reader in READERS if (found := reader(application, placed)) is not None), None)
