"""Empty the cache of zypper in the layer that filled it.

Why: The metadata and packages that zypper keeps are of no use in an image, and a later RUN cannot take them out of the layer.
Refuses: A RUN with a mount over the cache, a cache that another stage takes, and a script in which nothing can stand behind the
install.
Source: zypper's manual, "clean"; hadolint DL3036.
"""

from __future__ import annotations

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


_INSTALLS = frozenset("install in update up patch dist-upgrade dup".split())


def _fills(command: Command) -> bool:
    return command.name == "zypper" and subcommand(command) in _INSTALLS


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    script = facts.script(run)
    cleans = script is not None and any(subcommand(c) in ("clean", "cc") for c in script.commands if c.name == "zypper")
    return cleans or facts.deletes(run, "/var/cache/zypp")


_CACHE = PackageCache(
    "the cache of zypper",
    "zypper",
    _fills,
    lambda _command: "zypper clean --all",
    _is_emptied,
    folders=("/var/cache/zypp",),
    word="/var/cache/zypp",
)


class CleanZypperCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3036",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
