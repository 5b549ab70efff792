"""Whether the packages of a stage's distribution can still be installed: distributions die, and builds on them with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import subcommand
from optimizer.facts.commands import APT
from optimizer.facts.images import archived

if TYPE_CHECKING:
    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.facts import Facts

_FETCHES = {
    **dict.fromkeys(APT, frozenset({"update", "install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep"})),
    "apk": frozenset({"add", "update", "upgrade"}),
    **dict.fromkeys(("yum", "dnf", "microdnf"), frozenset({"install", "update", "upgrade", "groupinstall"})),
    "zypper": frozenset({"install", "in", "update", "up", "refresh", "ref"}),
}
# Where the packages of dead releases are kept.
_ARCHIVES = re.compile(r"archive\.debian\.org|snapshot\.debian\.org|old-releases\.ubuntu\.com|vault\.centos\.org")


def fetches(command: Command) -> bool:
    """Whether a command fetches packages of a distribution, or their lists."""
    verbs = _FETCHES.get(command.name or "")
    return verbs is not None and subcommand(command) in verbs


def gone_since(facts: Facts, stage: Stage) -> str | None:
    """Since when the packages of the stage's distribution are gone from where it looks for them, as "YYYY-MM"; None where they
    are served, where the stage looks for them in an archive, and where that is not known."""
    base = facts.image(stage)
    since = archived(base) if base is not None else None
    if since is None:
        return None
    told = (i for s in stage.ancestry for i in s.body if i.keyword in ("RUN", "COPY", "ADD"))
    redirected = any(_ARCHIVES.search(facts.document.raw(i)) or "sources.list" in i.destination for i in told)
    return None if redirected else since
