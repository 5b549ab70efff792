"""Empty the cache of Yarn 1 in the layer that filled it.

Why: Yarn keeps every package that it downloads, beside node_modules; nothing in the image reads it again.
Refuses: Yarn 2 and later and Plug'n'Play (there the cache is, or can be, the installed packages), a RUN with a cache mount,
and a script that nothing can be appended to.
Source: Yarn's documentation, "yarn cache" and "Plug'n'Play"; hadolint DL3060.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.cleanup import PackageCache
from optimizer.facts.node import is_berry, uses_pnp
from optimizer.rewrite import Aspect
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.rewrite import Refusal, Rewrite


def _fills(command: Command) -> bool:
    if command.name != "yarn" or "--version" in command.args:
        return False
    plain = [arg for arg in command.args if not arg.startswith("-")]
    return plain[:1] in ([], ["install"], ["add"]) or plain[:2] == ["global", "add"]


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    return any(facts.deletes(run, path) for path in ("cache:yarn", "/usr/local/share/.cache"))


def _objection(facts: Facts, run: Instruction) -> str | None:
    text = facts.document.source.text
    if is_berry(facts.context) or re.search(r"corepack|yarn set version|yarn@(stable|berry|[2-9])", text):
        return "this is Yarn 2 or later, or may be, whose cache can be the installed packages themselves"
    if re.search(r"--(enable-)?pnp\b", text) or uses_pnp(facts.context):
        return "Plug'n'Play runs the packages from that cache"
    if "--offline" in text:
        return "an install works offline, from that cache"
    return (
        "YARN_CACHE_FOLDER says where the cache is: somebody wants it"
        if "YARN_CACHE_FOLDER" in facts.state(run).variables
        else None
    )


_CACHE = PackageCache(
    "the cache of Yarn", _fills, lambda _command: "yarn cache clean", _is_emptied, _objection, folder="/.cache"
)


class CleanYarnCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3060",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
