"""Empty the cache of dnf, yum or microdnf in the layer that filled it.

Why: The metadata and packages that dnf keeps are of no use in an image, and a later RUN cannot take them out of the layer.
Refuses: A RUN with a mount over the cache, a cache that a later install or another stage uses, and a script in which nothing
can stand behind the install.
Source: dnf's manual, "clean all"; hadolint DL3032 and DL3040.
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


_MANAGERS = ("dnf", "yum", "microdnf")
# Not localinstall: it works without a repository, and `yum clean` does not.
_INSTALLS = frozenset("install reinstall groupinstall update upgrade builddep".split())


def _fills(command: Command) -> bool:
    return command.name in _MANAGERS and subcommand(command) in _INSTALLS and "--downloadonly" not in command.args


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    return any(facts.deletes(run, path) for path in ("cache:dnf", "/var/cache/dnf", "/var/cache/yum"))


_CACHE = PackageCache(
    "the cache of dnf",
    "dnf",
    _fills,
    lambda command: f"{command.name} clean all",
    _is_emptied,
    folders=("/var/cache/dnf", "/var/cache/yum"),
    word="/var/cache",
)


class CleanDnfCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3032", "DL3040"))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
