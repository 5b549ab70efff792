"""Safe mode over checked-out repositories, each Dockerfile with its context: what was rewritten, and on what evidence.

`python -m tests.wild FOLDER` prints every safe rewrite grouped by its transform and by what it stood on, the rarest evidence
first: the odd ones are at the top. FOLDER has one folder a repository of `repositories.tsv`, called `owner+name`. How those
were drawn stands in `README.md` beside this file; none is swapped later.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.batch import fix_bytes
from optimizer.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.engine import Outcome
    from optimizer.rewrite import Rewrite

LIST = Path(__file__).parent / "repositories.tsv"
# A repository of ten thousand Dockerfiles must not drown the others: those that come first by the hash of their path.
MOST_PER_REPOSITORY = 12
_NAMES = re.compile(r"^(Dockerfile|Containerfile|Dockerfile\..+|.+\.Dockerfile)$")
_NOT = re.compile(
    r"(^|/)(vendor|node_modules|\.git)/|\.(md|txt|dockerignore|sh|py|js|ts|go|yml|yaml|json|j2|tmpl|erb|orig|bak)$"
)
# What differs from file to file in a claim: names, paths, numbers, versions.
_OWN = re.compile(r"`[^`]*`|\"[^\"]*\"|[\w./@+-]*[/.\d][\w./@+:-]*")


@dataclass(frozen=True)
class Repository:
    """A row of the list: `owner/name`, the commit, and the stratum that it was drawn from."""

    name: str
    commit: str
    why: str

    @property
    def folder(self) -> str:
        return self.name.replace("/", "+")


@dataclass(frozen=True)
class Found:
    """A safe rewrite that was applied to the Dockerfile at `path`, below the folder of the repositories."""

    path: str
    rewrite: Rewrite

    @property
    def basis(self) -> str:
        """What it stood on, without the names of this file alone."""
        claims = [item.claim for item in self.rewrite.evidence] + list(self.rewrite.held)
        return "; ".join(sorted({_OWN.sub("…", claim) for claim in claims}))


@dataclass
class Campaign:
    """What came of all Dockerfiles: `errors` are bugs, each with its file."""

    files: int = 0
    rewritten: list[str] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    held_back: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    repositories: Counter[str] = field(default_factory=Counter)

    def take(self, path: str, outcome: Outcome) -> None:
        self.errors += [f"{path}: {error}" for error in outcome.errors]
        self.found += [Found(path, rewrite) for rewrite in outcome.applied]
        self.rewritten += [path] if outcome.is_changed else []
        self.held_back.update(rewrite.name for rewrite in outcome.held_back)
        self.refused.update(refusal.name for refusal in outcome.refused)

    def groups(self) -> list[tuple[str, str, list[Found]]]:
        """(transform, basis, rewrites), the rarest basis of each transform first."""
        groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
        for found in self.found:
            groups[found.rewrite.name, found.basis].append(found)
        ordered = sorted(groups.items(), key=lambda item: (item[0][0], len(item[1]), item[0][1]))
        return [(name, basis, rewrites) for (name, basis), rewrites in ordered]

    def report(self) -> str:
        applied = Counter(found.rewrite.name for found in self.found)
        share = len(self.rewritten) / max(self.files, 1)
        lines = [
            f"{len(self.repositories)} repositories, {self.files} Dockerfiles",
            f"{len(self.rewritten)} with a safe rewrite ({share:.1%}), {len(self.found)} rewrites",
            *(f"    {count:4} {reason}" for reason, count in self.left.most_common()),
            f"{len(self.errors)} errors",
            *(f"    {error}" for error in self.errors),
            "",
            f"{'transform':24} applied held back  refused",
        ]
        lines += [
            f"{name:24} {applied[name]:7} {self.held_back[name]:9} {self.refused[name]:8}"
            for name in sorted({*applied, *self.held_back, *self.refused})
        ]
        for name, basis, rewrites in self.groups():
            lines += ["", f"{name}  x{len(rewrites)}  {basis}"]
            lines += [f"    {found.path}:{found.rewrite.evidence[0].at.line}  {found.rewrite.summary}" for found in rewrites]
        return "\n".join(lines)


def repositories(path: Path = LIST) -> tuple[Repository, ...]:
    """The rows of the list."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row and row[0] != "name"]
    return tuple(Repository(*row[:3]) for row in rows)


def dockerfiles(folder: Path) -> Iterator[Path]:
    """The Dockerfiles of a checkout, at most MOST_PER_REPOSITORY of them."""
    found: list[str] = []
    for path in folder.rglob("*"):
        shown = path.relative_to(folder).as_posix()
        if _NAMES.match(path.name) and not _NOT.search(shown) and path.is_file() and not path.is_symlink():
            found.append(shown)
    found.sort(key=lambda shown: hashlib.sha256(shown.encode()).hexdigest())
    yield from (folder / shown for shown in sorted(found[:MOST_PER_REPOSITORY]))


def run(folder: Path, rows: Iterable[Repository]) -> Campaign:
    """Rewrite, in memory, the Dockerfiles of the repositories that are in `folder`."""
    campaign = Campaign()
    for row in rows:
        root = folder / row.folder
        for path in dockerfiles(root) if root.is_dir() else ():
            shown = path.relative_to(folder).as_posix()
            campaign.files += 1
            campaign.repositories[row.name] += 1
            try:
                result = fix_bytes(path.read_bytes(), path, {})
            except SettingsError as error:
                campaign.left[f"settings: {error}"] += 1
                continue
            if result.outcome is not None:
                campaign.take(shown, result.outcome)
            else:
                campaign.left["left alone" if result.left_alone else "cannot be read"] += 1
    return campaign


def as_json(campaign: Campaign) -> str:
    """The rewrites as a list for a reader who keeps verdicts: path, line, transform, summary, basis, evidence."""
    rows = [
        {
            "path": found.path,
            "transform": found.rewrite.name,
            "summary": found.rewrite.summary,
            "basis": found.basis,
            "evidence": [f"{item.at} {item.claim}" for item in found.rewrite.evidence],
        }
        for _, _, rewrites in campaign.groups()
        for found in rewrites
    ]
    return json.dumps({"files": campaign.files, "rewritten": campaign.rewritten, "rewrites": rows}, indent=1)
