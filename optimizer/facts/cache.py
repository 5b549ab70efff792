"""The cache model: which steps a builder runs again when a file of the build context changes.

BuildKit keys COPY and ADD by the content of the files that they bring and everything else by what came before it, so one
changed file runs again every step from the first that brings it, and whatever copies from a stage that ran again. Metadata
(ENV, CMD, USER, ...) makes no step; steps of two stages with the same history are one step. A COPY from a stage that ran again
is counted, though it costs nothing where what it copies came out the same.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean

if TYPE_CHECKING:
    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction, Mount
    from optimizer.facts.facts import Facts

# Instructions that change nothing in what later steps run with.
_SILENT = frozenset({"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "STOPSIGNAL", "VOLUME"})
STEPS = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})
_SOURCE_ENDINGS = (
    ".py",
    ".js",
    ".mjs",
    ".cjs",
    ".ts",
    ".tsx",
    ".jsx",
    ".go",
    ".rb",
    ".php",
    ".rs",
    ".java",
    ".kt",
    ".cs",
)
_MAIN_NAMES = ("main", "app", "server", "index", "manage", "wsgi", "cli")


@dataclass(frozen=True, slots=True)
class Rerun:
    """After an edit to `file`, `steps` of `total` steps run again."""

    file: str
    steps: int
    total: int


class CacheModel:
    """Answers what an edit costs, for the stages that the target needs."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def rerun(self, file: str) -> Rerun:
        """What runs again after an edit to `file`, a path below the build context."""
        dirty_stages: set[int] = set()
        counted: set[tuple[str, ...]] = set()
        histories: dict[int, tuple[str, ...]] = {}
        again = total = 0
        for stage in self._facts.built:
            dirty = stage.parent is not None and stage.parent.index in dirty_stages
            history = histories[stage.parent.index] if stage.parent is not None else (stage.image,)
            for instruction in stage.body:
                history += (self._facts.document.raw(instruction),) if instruction.keyword not in _SILENT else ()
                if instruction.keyword not in STEPS:
                    continue
                dirty = dirty or self._is_hit(stage, instruction, file, dirty_stages)
                if history not in counted:
                    counted.add(history)
                    total += 1
                    again += dirty
            histories[stage.index] = history
            if dirty:
                dirty_stages.add(stage.index)
        return Rerun(file, again, total)

    def _is_hit(self, stage: Stage, instruction: Instruction, file: str, dirty_stages: set[int]) -> bool:
        if source := instruction.flag("from"):
            origin = self._facts.document.stage_named(source.value or "")
            return origin is not None and origin.index in dirty_stages
        if instruction.keyword == "RUN":
            return any(self._binds(mount, file, dirty_stages) for mount in instruction.mounts)
        copy = next((c for c in self._facts.copies(stage) if c.instruction is instruction), None)
        if copy is None:
            return False
        if copy.placements is None:
            return any(_may_bring(source, file) for source in copy.sources)
        return copy.brings(file)

    def _binds(self, mount: Mount, file: str, dirty_stages: set[int]) -> bool:
        options = mount.options
        if mount.kind != "bind":
            return False
        if "from" in options:
            origin = self._facts.document.stage_named(options["from"])
            return origin is not None and origin.index in dirty_stages
        source = clean(options.get("source", options.get("src", "")))
        return source in ("", file) or file.startswith(source + "/")

    def entry_file(self) -> str | None:
        """The source file that a developer would edit: what the image starts, else a main file, else any source file."""
        brought = self._brought()
        if named := next((f for f in self._started() if f in brought), None):
            return named
        sources = [f for f in brought if f.endswith(_SOURCE_ENDINGS) and not re.search(r"(^|/)tests?(/|_)|[._]test\.", f)]
        return min(sources, key=_mainness, default=None)

    def _started(self) -> list[str]:
        """Files of the context that CMD or ENTRYPOINT names."""
        facts, target = self._facts, self._facts.target
        found = []
        for keyword in ("ENTRYPOINT", "CMD"):
            instruction = target.last(keyword) if target else None
            script = facts.script(instruction) if instruction else None
            if instruction is None or script is None or not script.commands:
                continue
            for word in script.commands[0].words:
                path = facts.state(instruction).path(word.text) if word.text else None
                found += [s for c in facts.copies(target) if path and (s := c.locate(path))] if target else []
        return [f for f in found if f.endswith(_SOURCE_ENDINGS)]

    def _brought(self) -> tuple[str, ...]:
        """The files that the build copies from the context."""
        found: dict[str, None] = {}
        for stage in self._facts.built:
            for copy in self._facts.copies(stage):
                for placement in copy.placements or ():
                    if not placement.is_folder:
                        found[placement.source] = None
                        continue
                    for file in self._facts.context.walk(placement.source):
                        found[file] = None
        return tuple(found)


def _mainness(file: str) -> tuple[int, int, int, str]:
    stem = posixpath.basename(file).partition(".")[0]
    rank = _MAIN_NAMES.index(stem) if stem in _MAIN_NAMES else len(_MAIN_NAMES)
    return file.count("/") if rank == len(_MAIN_NAMES) else 0, rank, file.count("/"), file


def _may_bring(source: str, file: str) -> bool:
    """Whether a source of a copy that is only partly understood may name `file`."""
    path = clean(source)
    return "$" in source or path in ("", file) or file.startswith(path + "/")
