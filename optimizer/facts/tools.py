"""Whether a tool is there, in the version that a rewrite relies on, at the point of the script where it would be used.

A rewrite that adds work to a build has to know that the work succeeds. The table is `tools.toml`; outside of it the answer is
"not known".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from optimizer.facts.archives import fetches
from optimizer.facts.commands import APT, deleted
from optimizer.facts.images import alpine_at_least, release_in_tag
from optimizer.facts.packages import table
from optimizer.facts.python import program
from optimizer.facts.wheels import version as version_of
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.facts import Facts
    from optimizer.facts.images import Image
    from optimizer.rewrite import Evidence

# Words by which package managers take packages away.
_REMOVES = frozenset({"remove", "purge", "autoremove", "del", "erase", "uninstall", "rm", "un", "unlink", "disable"})
_MANAGERS = APT | frozenset("apk yum dnf microdnf zypper rpm dpkg npm yarn pnpm corepack nvm pip".split())
_NEWEST_PIP = re.compile(r"get-pip\.py")
_PYTHON = re.compile(r"(?:python|pip|cpython-?|py)-?(3)[.-]?(\d{1,2})\b")
# Minor versions of Python 3 that came with, and after, a version of pip: 3.5 (2015) and 3.9 (2020).
_PIP_OF_PYTHON = ((9, "20.0"), (5, "7.0"))


def taken_away(facts: Facts, run: Instruction, command: Command, last: Command | None = None) -> Evidence | None:
    """A command behind `command` that removes programs or folders, in the same statement as `last` (`command` itself where that
    is not given); None without one."""
    script = facts.script(run)
    if script is None:
        return None
    step = script.steps[script.step_of(command if last is None else last)]
    for placed in facts.placed(run) or ():
        other = placed.command
        if other.span.start <= command.span.start or not step.span.contains(other.span):
            continue
        is_removal = other.name in _MANAGERS and bool(_REMOVES.intersection(other.args[:2]))
        if is_removal or any(True for _ in deleted((placed,))):
            return facts.seen_command(run, other, "takes something away")
    return None


# -------------------------------------------------------------------- options


def knows_option(facts: Facts, run: Instruction, command: Command, tool: str, option: str) -> Check:
    """Whether the `tool` that `command` of `run` starts knows `option`; None where neither the image nor the file tells."""
    known = table("tools")[tool]
    lowest = Version(known["options"][option])
    claim = f"{tool} knows {option}, which came with {lowest}"
    for instruction, other in _before(facts, run, command):
        version = _version_by(other, tool, option, lowest)
        if version is not None:
            seen = facts.seen_command(instruction, other, "says so")
            return _verdict(version, known, tool, option, seen)
    stage = facts.document.stage_of(run)
    version = _of_image(facts.image(stage), facts.reference(stage) or "", known, tool)
    if version is None:
        return Check(claim, holds=None)
    return _verdict(version, known, tool, option, facts.seen(stage.base, f"has {tool} {version}"))


def _verdict(version: Version, known: dict[str, Any], tool: str, option: str, seen: Evidence) -> Check:
    """What a version of the tool makes of the option."""
    lowest, harmless = Version(known["options"][option]), Version(known.get("harmless", {}).get(option, "0"))
    if version < lowest:
        claim = f"{tool} {version} of this image does not know {option}: it came with {lowest}"
        return Check(claim, holds=False, evidence=(seen,))
    if version < harmless:
        claim = f"{tool} is {harmless} or newer: older ones build no wheels with {option}, and install sources in another way"
        return Check(claim, holds=None, evidence=(seen,))
    return Check(f"{tool} knows {option}, which came with {lowest}", holds=True)


def _before(facts: Facts, run: Instruction, command: Command) -> Iterator[tuple[Instruction, Command]]:
    """The commands that have run when `command` of `run` starts, nearest first."""
    for earlier in sorted(facts.up_to(run, "RUN"), key=lambda i: -i.index):
        for other in reversed(facts.commands(earlier)):
            if earlier is not run or other.span.start < command.span.start:
                yield earlier, other


def _version_by(command: Command, tool: str, option: str, lowest: Version) -> Version | None:
    """A version that a command proves: it uses the option itself, or installs the tool anew."""
    name, args = program(command)
    is_tool = name == tool or (tool == "pip" and re.fullmatch(r"pip[\d.]*", name) is not None)
    if is_tool and option in args and command.is_unconditional and not any(re.match(r"pip[=<~]", arg) for arg in args):
        return max(lowest, Version(table("tools")[tool].get("harmless", {}).get(option, "0")))  # the author's own way
    if tool != "pip":
        return None
    if _NEWEST_PIP.search(str(command)) or (name.startswith("easy_install") and "pip" in args):
        return Version("19.0")  # what get-pip.py serves for every Python from 2.7 and 3.4 on
    if is_tool and "install" in args and {"-U", "--upgrade"} & {*args, *(a[:2] for a in args if a.startswith("-U"))}:
        asked = next((arg for arg in args if re.match(r"pip(?![\w-])", arg)), None)
        pinned = re.match(r"pip==([\d.]+)$", asked or "")
        if asked is not None and (asked == "pip" or pinned is not None):
            return version_of(pinned[1]) if pinned is not None else Version("19.0")
    python = _PYTHON.search(" ".join((command.name or "", *args))) if is_tool or fetches(command) else None
    if python is not None and (least := _pip_of_python(int(python[2]))) is not None:
        return least  # by its own name, or installed as python3.11-pip
    return None


def _of_image(base: Image | None, reference: str, known: dict[str, Any], tool: str) -> Version | None:
    """The version of the tool in an image, by the image itself or by the release of its distribution."""
    own = known.get("images", {}).get(base.name) if base is not None else None
    if base is not None and own is not None:
        return _of_tag(base.version, own)
    if tool == "pip" and (match := _PYTHON.search(reference)) is not None and (least := _pip_of_python(int(match[2]))):
        return least
    young = known.get("young", {"names": (), "version": "0"})
    if reference.startswith(tuple(young["names"])):
        return Version(young["version"])
    release = base.release if base is not None else release_in_tag(reference.rpartition(":")[2])
    for family in ("debian", "ubuntu"):
        if release in known.get(family, {}):
            return Version(known[family][release])
    return _of_alpine(alpine_at_least(base) if base is not None else None, known.get("alpine", {}))


def _pip_of_python(minor: int) -> Version | None:
    """The pip that a minor version of Python 3 has at least."""
    return next((Version(pip) for lowest, pip in _PIP_OF_PYTHON if minor >= lowest), None)


def _of_tag(version: str | None, own: dict[str, Any]) -> Version:
    """The version in an image that brings the tool itself."""
    if version in own["exact"]:
        return Version(own["exact"][version])
    minor = ".".join((version or "").split(".")[:2])
    since = own["since"].get(minor)
    is_complete = (version or "").count(".") == 2 or minor in ("3.2", "3.3")
    is_older = since is not None and is_complete and Version(version or "0") < Version(since)
    return Version(own["before"] if is_older else own["all"])


def _of_alpine(release: str | None, versions: dict[str, str]) -> Version | None:
    """The version in a release of Alpine: that of the newest release in the table that is not newer."""
    if release is None or not versions:
        return None
    older = [known for known in versions if Version(known) <= Version(release)]
    return Version(versions[max(older, key=Version)]) if older else Version("0")
