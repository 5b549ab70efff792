"""Delete the archives that RubyGems keeps beside what it installs.

Why: `gem install` keeps each .gem file in the cache folder of the gem home; nothing but `gem pristine` and `bundle cache` reads
it again.
Refuses: A file that runs one of these or names the cache, an install by another user than root, a RUN with a cache mount, and
a script in which nothing can stand behind the install.
Source: RubyGems guides, "gem install" and "gem pristine".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.cleanup import PackageCache
from optimizer.dockerfile.shell import subcommand
from optimizer.facts.garbage import every_command
from optimizer.facts.state import is_root
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
    script = facts.script(run)
    commands = script.commands if script is not None else ()
    return any(c.name == "rm" and any("/cache" in arg for arg in c.args) for c in commands)


def _objection(facts: Facts, run: Instruction) -> str | None:
    user = facts.state(run).user
    by_sudo = any(command.words[:1] and command.words[0].text == "sudo" for command in facts.commands(run))
    if user is not None and not is_root(user) and not by_sudo:
        return "another user than root may not delete what root has installed there"
    for instruction, command in every_command(facts):
        if command.name == "gem" and subcommand(command) == "pristine":
            return "`gem pristine` reads that cache"
        if command.name in ("bundle", "bundler") and subcommand(command) in ("cache", "package", "pack"):
            return "`bundle cache` reads that cache"
        is_own = {"-i", "--install-dir", "--user-install"} & {arg.partition("=")[0] for arg in command.args}
        if instruction is run and command.name == "gem" and is_own:
            return "the gems are installed into a folder of their own"
    return None


_CACHE = PackageCache("the cache of RubyGems", "gem", _fills, lambda _command: _CLEANUP, _is_emptied, _objection, word="/cache")


class CleanGemCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
