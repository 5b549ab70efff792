"""The fixture folders: what a case holds and how it is run.

`fixtures/<transform>/<case>/` is a build context with a Dockerfile. `expected.Dockerfile` is the result (absent: the case
must not change), `expected.dockerignore` a companion file, `report.md` the review of a changing case. `case.toml`: `unsafe`,
`all` (run every transform, not this one alone), `refused` (words that a refusal must hold), `held_back` (words of an unknown
claim), `target`, `base`, `hazard` (the rows of tests/hazards.toml that it stands for).
"""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optimizer.batch import FileResult
from optimizer.discovery import context_folder
from optimizer.dockerfile.document import Document
from optimizer.engine import Outcome, optimize
from optimizer.facts.context import BuildContext
from optimizer.settings import Settings

ROOT = Path(__file__).parent.parent / "fixtures"
OWN_FILES = ("expected.Dockerfile", "expected.dockerignore", "report.md", "case.toml")
NOT_TRANSFORMS = ("apps",)


@dataclass(frozen=True)
class Case:
    """A fixture folder."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.relative_to(ROOT).as_posix()

    @property
    def transform(self) -> str:
        return self.folder.parent.name

    @cached_property
    def options(self) -> dict[str, Any]:
        path = self.folder / "case.toml"
        return tomllib.loads(path.read_text("utf-8")) if path.exists() else {}

    @property
    def before(self) -> bytes:
        return (self.folder / "Dockerfile").read_bytes()

    @property
    def expected(self) -> bytes | None:
        path = self.folder / "expected.Dockerfile"
        return path.read_bytes() if path.exists() else None

    @property
    def expected_ignore(self) -> str | None:
        path = self.folder / "expected.dockerignore"
        return path.read_text("utf-8") if path.exists() else None

    @property
    def changes(self) -> bool:
        return self.expected is not None or self.expected_ignore is not None

    @property
    def settings(self) -> Settings:
        options = self.options
        select = () if options.get("all") or self.transform == "pipeline" else (self.transform,)
        base = options.get("base", "auto")
        return Settings(unsafe=options.get("unsafe", False), select=select, target=options.get("target"), base=base)

    def lay_out(self, folder: Path) -> Path:
        """Copy the build context, without the case's own files, to `folder`."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(*OWN_FILES), symlinks=True, dirs_exist_ok=True)
        return folder

    def run(self, folder: Path, data: bytes | None = None) -> Outcome:
        """Optimize `data` (default: the case's Dockerfile) in the context laid out at `folder`."""
        document = Document.parse(self.before if data is None else data)
        services = context_folder(folder / "Dockerfile", document).services
        return optimize(document, BuildContext(folder, "Dockerfile", services=services), self.settings)


def cases() -> list[Case]:
    """Every fixture case, sorted."""
    found = [path.parent for path in ROOT.glob("*/*/Dockerfile") if path.parent.parent.name not in NOT_TRANSFORMS]
    return [Case(folder) for folder in sorted(found)]


def result_of(outcome: Outcome) -> FileResult:
    """The outcome as the renderers take it."""
    return FileResult("Dockerfile", outcome=outcome, context=BuildContext(None))
