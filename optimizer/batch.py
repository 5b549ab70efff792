"""From a path to a result: read, find the build context, optimize, write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.discovery import ContextFolder, context_folder, write_atomically
from optimizer.dockerfile.document import Document
from optimizer.dockerfile.generated import LeftAlone, why_left_alone
from optimizer.dockerfile.scan import DockerfileError
from optimizer.dockerfile.source import Source
from optimizer.engine import Outcome, optimize
from optimizer.facts.context import BuildContext
from optimizer.settings import Settings, SettingsError, check_names, load
from optimizer.transform import all_transforms

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_INSTRUCTIONS = 1_000


@dataclass(frozen=True, slots=True)
class FileResult:
    """What came of one file: an outcome, a reason to leave it alone, or an error with its place."""

    path: str
    outcome: Outcome | None = None
    left_alone: LeftAlone | None = None
    error: DockerfileError | None = None
    context: BuildContext | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def is_changed(self) -> bool:
        return self.outcome is not None and self.outcome.is_changed

    @property
    def is_failed(self) -> bool:
        return self.error is not None or (self.outcome is not None and bool(self.outcome.errors))


def fix_file(path: Path, chosen: Mapping[str, Any]) -> FileResult:
    """Optimize the Dockerfile at `path` with the settings in force there. Raises OSError and SettingsError."""
    return fix_bytes(path.read_bytes(), path, chosen)


def fix_bytes(data: bytes, path: Path, chosen: Mapping[str, Any]) -> FileResult:
    """Optimize `data` as if it stood at `path`. Raises SettingsError."""
    shown = _shown(path)
    folder = path.absolute().parent
    settings = load(folder, os.environ, chosen)
    check_names(settings, tuple(t.meta.name for t in all_transforms()))
    source = Source.from_bytes(data)
    if (left_alone := why_left_alone(source)) is not None:
        return FileResult(shown, left_alone=left_alone)
    try:
        document = Document.parse(source, shown)
    except DockerfileError as error:
        return FileResult(shown, error=error)
    if len(document.instructions) > MAX_INSTRUCTIONS:
        reason = f"it has {len(document.instructions)} instructions, more than people write"
        return FileResult(shown, left_alone=LeftAlone(reason, 1, source.line(0).strip()))
    if settings.context is not None and not Path(settings.context).is_dir():
        raise SettingsError(f"--context: expected a folder, found {settings.context}")
    if settings.target is not None and document.stage_named(settings.target) is None:
        raise SettingsError(f'{shown}: no stage is called "{settings.target}"')
    found = ContextFolder(Path(settings.context).absolute(), "said") if settings.context else context_folder(path, document)
    root = found.folder
    shown_root = _shown(root).removesuffix(".")
    context = BuildContext(root, _inside(path.absolute(), root), {}, shown_root, found.doubt, services=found.services)
    return FileResult(shown, outcome=optimize(document, context, settings), context=context, settings=settings)


def write(result: FileResult) -> list[Path]:
    """Write what a result changes, the Dockerfile last; the paths written. Raises WriteError."""
    outcome, context = result.outcome, result.context
    if outcome is None or context is None or not outcome.is_changed:
        return []
    files = [(context.root / file.path, file.text.encode()) for file in outcome.files if context.root is not None]
    if outcome.after.source.text != outcome.before.source.text:
        files.append((Path(result.path), outcome.after.source.to_bytes()))
    write_atomically(files, new=[context.root / file.path for file in outcome.files if context.root is not None])
    return [path for path, _ in files]


def _inside(path: Path, root: Path) -> str | None:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


def _shown(path: Path) -> str:
    """`path` as the user would type it: below the current folder without it, elsewhere as it is."""
    absolute = Path(os.path.normpath(path.absolute()))
    here = Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else os.path.relpath(absolute, here)
