"""Empty the cache of Yarn 1 in the layer that filled it.

Why: Yarn keeps every package that it downloads, beside node_modules; nothing in the image reads it again.
Refuses: Yarn 2 and later and Plug'n'Play (there the cache is, or can be, the installed packages), a RUN with a mount over the
cache, an install whose packages are deleted again (filling the cache is its purpose), and a cache that something later uses.
Source: Yarn's documentation, "yarn cache" and "Plug'n'Play"; hadolint DL3060.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.cleanup import PackageCache, deletes_asked
from optimizer.facts.garbage import commands_up_to
from optimizer.facts.manifests import Application
from optimizer.facts.node import is_berry, is_project_install, local_packages, uses_pnp
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


def _is_unread(facts: Facts, run: Instruction) -> bool:
    """Whether a project is installed that is not in the build context: its settings may ask for a newer Yarn."""
    if not any(facts.up_to(run, "COPY", "ADD")) and all(c.name == "yarn" for _, c in commands_up_to(facts, run)):
        return False  # nothing has brought a project
    application = Application(facts, run)
    projects = (p for p in facts.placed(run) or () if p.command.name == "yarn" and is_project_install(p))
    return any(application.project(placed, "package.json") is None for placed in projects)


def _is_emptied(facts: Facts, run: Instruction) -> bool:
    return deletes_asked(facts, run, "yarn cache dir") or any(facts.deletes(run, path) for path in ("cache:yarn", *_FOLDERS))


def _objection(facts: Facts, run: Instruction) -> str | None:
    for _, command in commands_up_to(facts, run):
        if (command.name == "yarn" and command.args[:2] == ("set", "version")) or command.name == "corepack":
            return _NEWER
        if command.name in ("npm", "corepack") and any(re.match(r"yarn@(?!1\.|classic|legacy)", arg) for arg in command.args):
            return _NEWER
        if command.name == "yarn" and {"--pnp", "--enable-pnp"} & set(command.args):
            return _PLUG
        if "YARN_CACHE_FOLDER" in {word.partition("=")[0] for word in command.sets}:
            return _SOMEBODYS
        if command.name == "yarn" and (
            command.args[:3] == ("config", "set", "cache-folder") or "--cache-folder" in command.args
        ):
            return _SOMEBODYS
    if is_berry(facts.context) or _is_unread(facts, run):
        return _NEWER
    if uses_pnp(facts.context):
        return _PLUG
    return _SOMEBODYS if "YARN_CACHE_FOLDER" in facts.state(run).variables else None


_NEWER = "this is Yarn 2 or later, or may be, whose cache can be the installed packages themselves"
_PLUG = "Plug'n'Play runs the packages from that cache"
_SOMEBODYS = "YARN_CACHE_FOLDER or a setting says where the cache is: somebody wants it"
_FOLDERS = ("/usr/local/share/.cache/yarn", "/root/.cache/yarn", "/home/node/.cache/yarn")
_CACHE = PackageCache(
    "the cache of Yarn",
    "yarn",
    _fills,
    lambda _command: "yarn cache clean",
    _is_emptied,
    _objection,
    folders=_FOLDERS,
    word="/.cache",
    results=local_packages,
)


class CleanYarnCache:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3060",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        yield from _CACHE.rewrites(self, facts)
