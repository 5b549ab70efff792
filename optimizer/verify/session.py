"""One run of verification: its builder, its temporary folder, and the end of everything that it started."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from optimizer.verify import sweep
from optimizer.verify.builders import Recipe, choose
from optimizer.verify.commands import Commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from optimizer.engine import Outcome
    from optimizer.facts.context import BuildContext
    from optimizer.settings import Verify
    from optimizer.verify.builders import Build, Builder


class Session:
    """Builds images that are gone when it ends, however it ends. Raises BuilderError where no builder answers.

    `options` are the settings for verifying, `on_progress` is told what runs, `commands` run it; without them, real ones.
    """

    def __init__(self, options: Verify, on_progress: Callable[[str], None], commands: Commands | None = None) -> None:
        self.options = options
        self.on_progress = on_progress
        self.commands = commands or Commands()
        self.label = sweep.mark()
        self.builder: Builder = choose(self.commands, self.label, name=options.builder, network=options.network)
        self.version = self.builder.version()
        self.build_seconds = 0.0
        self._tags = 0

    def __enter__(self) -> Self:
        program = self.builder.runs_with
        self.folder = sweep.temporary_folder()
        self._sweeper = sweep.Sweeper(self.commands, program, self.label, self.folder)
        self.commands.watch = self._sweeper.watch
        self.pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="verify")
        self._clearing = self.pool.submit(self._clear_left_over, program)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.commands.stop()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._sweeper.finish()
        if kind is None:
            self._clearing.result()  # what went wrong there is a bug, and is not to be lost

    def _clear_left_over(self, program: str) -> None:
        sweep.clear(self.commands, program)
        sweep.clear_folders()

    def recipe(self, outcome: Outcome, context: BuildContext, target: str | None) -> Recipe:
        """The rewritten Dockerfile and its ignore file, laid down in the temporary folder."""
        self._tags += 1
        place = self.folder / f"{self._tags}"
        place.mkdir()
        files = {file.path: file.text for file in outcome.files}
        seen = context.with_files(files) if files else context
        dockerfile = place / "Dockerfile"
        dockerfile.write_bytes(outcome.after.source.to_bytes())
        ignore_file = None
        if seen.ignore_path is not None:
            ignore_file = place / "Dockerfile.dockerignore"
            ignore_file.write_bytes(seen.ignore_bytes())
        return Recipe(dockerfile, self.root(context), ignore_file, target, self.options.build_args)

    def root(self, context: BuildContext) -> Path:
        """The context's folder; an empty one where nothing is known of it."""
        if context.root is not None:
            return context.root
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        return empty

    def build(self, recipe: Recipe, what: str, *, is_cold: bool) -> tuple[str, Build]:
        """Build; the image's name and how it went. `what` is said while it runs."""
        tag = f"dockeropt-verify:{os.getpid()}-{recipe.dockerfile.parent.name}" + ("" if is_cold else "-again")
        self.on_progress(what)
        build = self.builder.build(
            recipe,
            tag,
            is_cold=is_cold,
            timeout=self.options.timeout,
            on_step=lambda step: self.on_progress(f"{what}: {step}"),
        )
        self.build_seconds += build.elapsed
        return tag, build

    def copied_context(self, context: BuildContext) -> Path:
        """A copy of what the builder gets of a build context; of hard links, where the file system has them."""
        root = self.root(context)
        copy = self.folder / "edited"

        def link(source: str, target: str) -> None:
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:
                shutil.copy2(source, target, follow_symlinks=False)

        def unwanted(folder: str, names: list[str]) -> set[str]:
            inside = Path(folder).relative_to(root)
            return {name for name in names if context.kind((inside / name).as_posix()) is None}

        shutil.copytree(root, copy, symlinks=True, copy_function=link, ignore=unwanted)
        return copy


def append(file: Path, text: str) -> None:
    """Write `text` behind a file's end, into a new file: the old one may be a link to the author's."""
    data, mode = file.read_bytes(), file.stat().st_mode
    file.unlink()
    file.write_bytes(data + text.encode())
    file.chmod(mode)
