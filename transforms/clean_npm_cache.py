"""Empty the cache of npm in the layer that filled it.

Why: npm keeps every archive that it downloads in ~/.npm, beside the unpacked packages; nothing in the image reads it again.
Refuses: A RUN with a mount over the cache, a cache folder that the image or the command names, an install whose packages are
deleted again (filling the cache is its purpose), and a cache that a later install or another stage uses.
Source: npm's documentation, "npm cache".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.cleanup import PackageCache, deletes_asked
from optimizer.dockerfile.shell import subcommand
from optimizer.facts.commands import option_value
from optimizer.facts.garbage import commands_up_to
from optimizer.facts.node import local_packages
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
_SETTINGS = frozenset({"npm_config_cache", "NPM_CONFIG_CACHE"})
_FOLDERS = ("/root/.npm", "/home/node/.npm")


def _fills(command: Command) -> bool:
    return command.name == "npm" and subcommand(command) in _INSTALLS


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    return deletes_asked(facts, run, "npm config get cache") or any(
        facts.deletes(run, path) for path in ("cache:npm", *_FOLDERS)
    )


def _objection(facts: Facts, run: Instruction) -> str | None:
    for _, command in commands_up_to(facts, run):
        is_told = command.name == "npm" and option_value(command.args, "", "--cache") is not None
        if is_told or (command.name == "npm" and command.args[:3] == ("config", "set", "cache")):
            return "the command line says where the cache is: somebody wants it"
        if named := next((w.partition("=")[0] for w in command.sets if w.partition("=")[0] in {*_SETTINGS, "HOME"}), None):
            return f"{named} is set for the command alone, and decides where the cache is"
    named = next((name for name in facts.state(run).variables if name in _SETTINGS), None)
    return f"{named} says where the cache is: somebody wants it" if named else None


_CACHE = PackageCache(
    "the cache of npm",
    "npm",
    _fills,
    lambda _command: "npm cache clean --force",
    _is_emptied,
    _objection,
    folders=_FOLDERS,
    word="/.npm",
    results=local_packages,
)


class CleanNpmCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
