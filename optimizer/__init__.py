"""dockeropt: rewrites Dockerfiles, with the evidence for every change.

The public API is this handful of names; they are loaded when first asked for, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.dockerfile.document import Document
    from optimizer.engine import Outcome, optimize
    from optimizer.facts.context import BuildContext
    from optimizer.settings import Settings

__all__ = ["BuildContext", "Document", "Outcome", "Settings", "optimize"]

_HOMES = {
    "BuildContext": "optimizer.facts.context",
    "Document": "optimizer.dockerfile.document",
    "Outcome": "optimizer.engine",
    "Settings": "optimizer.settings",
    "optimize": "optimizer.engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'optimizer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
