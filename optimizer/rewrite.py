"""The vocabulary: evidence, checks, rewrites and refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.dockerfile.edit import Edit
    from optimizer.transform import Transform


Key = tuple[str, str, "Location"]


class Safety(IntEnum):
    """How sure a rewrite is. `fix` applies SAFE, `--unsafe` adds UNSAFE, SHOW is only told."""

    SHOW = 0
    UNSAFE = 1
    SAFE = 2


class Aspect(Enum):
    """What an image promises, and what a rewrite may say that it changes."""

    BASE = "base image"
    USER = "user"
    WORKDIR = "working directory"
    ENV = "environment"
    ENTRYPOINT = "entrypoint"
    CMD = "command"
    EXPOSE = "exposed ports"
    VOLUME = "volumes"
    LABEL = "labels"
    AUTHOR = "author"
    HEALTHCHECK = "health check"
    STOPSIGNAL = "stop signal"
    SHELL = "shell"
    ONBUILD = "triggers"
    COPIES = "what is copied where"
    COMMANDS = "commands run"


class FileChange(Enum):
    """What a transform may do to the files of the image. Which files are of a kind is found in the two images, not declared."""

    BASE = "files of the base image"
    IGNORED = "files that .dockerignore leaves out"
    BUILD = "files that stay in the build stage"
    PACKAGES = "files of system packages that no line names"
    DEVELOPMENT = "development dependencies"
    OWNER = "files that the new user owns"
    ADDED = "new files"


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file: path as the user would type it, line and column from 1."""

    path: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A line, what it says about the rewrite, and the line itself."""

    at: Location
    claim: str
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A claim that a rewrite rests on; `holds` is None where it cannot be known."""

    claim: str
    holds: bool | None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the checks of a rewrite allow: a tier, or the check that forbids it; which claims are unknown and which held."""

    safety: Safety
    failed: Check | None
    unknown: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    held: tuple[str, ...] = ()


def decide(best: Safety, checks: Iterable[Check]) -> Decision:
    """One False forbids, with its evidence; one None lowers the tier by one; else `best` stands."""
    checks = tuple(checks)
    failed = next((check for check in checks if check.holds is False), None)
    unknown = tuple(check.claim for check in checks if check.holds is None)
    safety = Safety(max(best - 1, Safety.SHOW)) if unknown else best
    held = tuple(check.claim for check in checks if check.holds)
    return Decision(safety, failed, unknown, tuple(e for check in checks for e in check.evidence), held)


@dataclass(frozen=True, slots=True)
class Change:
    """Entries of the run-time contract that a rewrite takes away and adds, in one aspect."""

    aspect: Aspect
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompanionFile:
    """A file beside the Dockerfile, in the build context, that a rewrite creates: path below the context and its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change to make, why, and what it rests on.

    `unknown` are the claims that could not be settled, `held` those that were checked and held, `changes` what differs in the
    contract, `implies` the aspects of the image that change with its base, without an instruction of their own; `only_proven`:
    what is unknown breaks the image when it is wrong, so that it is written with proof alone. Raises
    ValueError without evidence or without anything to do: such a rewrite is a bug.
    """

    transform: Transform
    summary: str
    safety: Safety
    edits: tuple[Edit, ...]
    evidence: tuple[Evidence, ...]
    why: str = ""
    changes: tuple[Change, ...] = ()
    caveats: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    files: tuple[CompanionFile, ...] = ()
    implies: frozenset[Aspect] = frozenset()
    only_proven: bool = False

    def __post_init__(self) -> None:
        if not self.evidence:
            raise ValueError(f"{self.name}: a rewrite without evidence")
        if not self.edits and not self.files:
            raise ValueError(f"{self.name}: a rewrite that changes nothing")

    @property
    def name(self) -> str:
        return self.transform.meta.name

    @property
    def key(self) -> Key:
        """What tells this rewrite from others of the same file, also when that is rewritten again without some of them."""
        return self.name, self.summary, self.evidence[0].at

    @property
    def reason(self) -> str:
        """Why: the rewrite's own words, or those of its transform."""
        return self.why or self.transform.meta.why


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rewrite that a reader would expect, and why it was not made."""

    transform: Transform
    reason: str
    evidence: tuple[Evidence, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.transform.meta.name
