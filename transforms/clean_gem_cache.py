"""Delete the archives that RubyGems keeps beside what it installs.

Why: `gem install` keeps each .gem file in the cache folder of the gem home; only `gem pristine` reads it again.
Refuses: A file that runs `gem pristine`, a RUN with a cache mount, and a script that nothing can be appended to.
Source: RubyGems guides, "gem install" and "gem pristine".
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


_CLEANUP = 'rm -f "$(gem env gemdir)"/cache/*.gem'


def _fills(command: Command) -> bool:
    return bool(command.words) and command.words[command.head].text == "gem" and subcommand(command) == "install"


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    return "/cache" in facts.document.raw(run) and "rm -" in facts.document.raw(run)


def _objection(facts: Facts, run: Instruction) -> str | None:
    if re.search(r"gem\b[^&|;\n]*(--install-dir|\s-i\s|--user-install)", facts.document.raw(run)):
        return "the gems are installed into a folder of their own"
    if re.search(r"\b(purge|remove|autoremove|del|erase)\b", facts.document.raw(run)):
        return "the RUN takes packages away again, perhaps Ruby itself"
    return "`gem pristine` reads that cache" if "gem pristine" in facts.document.source.text else None


_CACHE = PackageCache("the cache of RubyGems", _fills, lambda _command: _CLEANUP, _is_emptied, _objection)


class CleanGemCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
