"""Empty the cache of npm in the layer that filled it.

Why: npm keeps every archive that it downloads in ~/.npm, beside the unpacked packages; nothing in the image reads it again.
Refuses: A RUN with a cache mount, a cache folder that the image or the command names, an install that works offline, and a
script that nothing can be appended to.
Source: npm's documentation, "npm cache".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.cleanup import PackageCache
from optimizer.dockerfile.shell import subcommand
from optimizer.rewrite import Aspect
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.rewrite import Refusal, Rewrite


_INSTALLS = frozenset("ci install i add install-clean clean-install".split())
_SETTINGS = ("npm_config_cache", "NPM_CONFIG_CACHE")


def _fills(command: Command) -> bool:
    return command.name == "npm" and subcommand(command) in _INSTALLS


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    return any(facts.deletes(run, path) for path in ("cache:npm", "/root/.npm", "/home/node/.npm"))


def _objection(facts: Facts, run: Instruction) -> str | None:
    if "--offline" in facts.document.source.text:
        return "an install works offline, from that cache"
    if re.search(r"npm\b[^&|;\n]*--cache[ =]|npm config set cache", facts.document.raw(run)):
        return "the command line says where the cache is: somebody wants it"
    named = next((name for name in _SETTINGS if name in facts.state(run).variables), None)
    return f"{named} says where the cache is: somebody wants it" if named else None


_CACHE = PackageCache(
    "the cache of npm", _fills, lambda _command: "npm cache clean --force", _is_emptied, _objection, folder="/.npm"
)


class CleanNpmCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
