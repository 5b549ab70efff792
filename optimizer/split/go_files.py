"""Which files of the build context a Go program reads at run time, and how they get into its image."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean
from optimizer.facts.copies import AWKWARD
from optimizer.facts.places import THERE_ALWAYS
from optimizer.facts.uses import ANYTHING, Act, folder
from optimizer.rewrite import Check
from optimizer.split.frame import Obstacle, from_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.copies import Copy
    from optimizer.facts.uses import Use
    from optimizer.rewrite import Evidence
    from optimizer.split.frame import Line, Strategy

# What is no data, unless the program names it: sources, papers, settings of tools.
_PAPERS = re.compile(
    r"(^|/)(Dockerfile[^/]*|[^/]*\.Dockerfile|\.dockerignore|\.git[^/]*|README[^/]*|LICENSE[^/]*|Makefile|CHANGELOG[^/]*"
    r"|go\.(mod|sum|work)|[^/]*\.go|[^/]*\.md|(docker-)?compose[^/]*\.ya?ml|\.golangci[^/]*|\.github|\.idea|\.vscode|vendor)$",
    re.IGNORECASE,
)


class Files:
    """The copies that the runtime stage needs, the lines that say so, and what is not certain."""

    def __init__(self, stage: Strategy, uses: tuple[Use, ...], binary: str) -> None:
        self.stage = stage
        self.context = stage.facts.context
        self.binary = binary
        self.uses = tuple(u for u in uses if u.act in (Act.READS, Act.WRITES))
        self.lines: list[Line] = []
        self.evidence: list[Evidence] = []
        self.checks: list[Check] = []

    def find(self) -> Obstacle | None:
        """Fill in the copies; an obstacle where one of them cannot be made."""
        if (odd := self.stage.odd_copy(("nonroot", "nobody"))) is not None:
            return odd
        if (link := self.stage.linked()) is not None:
            self.checks.append(link)
        wanted, everything = self._wanted()
        for copy in self.stage.application.copies:
            for source, container in self._roots(copy, None if everything or self._is_outside(copy) else wanted):
                if AWKWARD.search(source) or AWKWARD.search(container):
                    seen = self.stage.facts.seen_in(source, "would have to be copied by name")
                    return Obstacle("a file that it reads has a name with blanks or wildcards", (seen,))
                self._add(copy, source, container)
        self._not_brought(wanted)
        return None

    def _wanted(self) -> tuple[tuple[str, ...], bool]:
        """The container paths that the program reads or writes to, and whether more than those may be read."""
        wanted: dict[str, None] = {}
        everything = False
        for use in self.uses:
            is_open = ANYTHING in (use.what or "")
            if use.what is None or (is_open and folder(use.what) in ("/", self.stage.workdir)):
                if use.act is Act.READS and not everything:
                    everything = True
                    seen = self.stage.app.seen(use, "names a file only when it runs: all but the sources is kept")
                    self.checks.append(Check("the files that it reads are known", holds=None, evidence=(seen,)))
            elif use.act is Act.READS and self._is_whole(use.what):
                if not everything:
                    everything = True
                    seen = self.stage.app.seen(use, "reads the working folder as a whole: all but the sources is kept")
                    claim = "which files of the working folder it reads or serves is known: it opens the folder itself"
                    self.checks.append(Check(claim, holds=None, evidence=(seen,)))
            elif not THERE_ALWAYS.match(use.what) and not use.what.startswith("~"):
                wanted[folder(use.what) if is_open or use.act is Act.WRITES else use.what] = None
        wanted.pop(self.stage.workdir or "/", None)
        return tuple(wanted), everything

    def _is_whole(self, path: str) -> bool:
        """Whether a path that is read is the working folder, or holds it."""
        workdir = self.stage.workdir
        return workdir is not None and f"{workdir.rstrip('/')}/".startswith(f"{path.rstrip('/')}/")

    def _is_outside(self, copy: Copy) -> bool:
        """Whether a copy goes to a place of its own, where nothing of the build lies."""
        places = {self.stage.workdir, *(self.stage.facts.state(run).workdir for run in self.stage.runs)} - {None}
        return not any(r == p or r.startswith(f"{(p or '').rstrip('/')}/") for r in copy.roots for p in places)

    def _add(self, copy: Copy, source: str, container: str) -> None:
        destination = self._destination(container, is_folder=self.context.is_folder(source))
        line = from_context([clean(source)], destination, copy.flags)
        if line in self.lines or container == self.binary:
            return
        self.lines.append(line)
        for use in self.uses:
            if use.what is not None and (use.what.startswith(container) or container.startswith(folder(use.what) + "/")):
                seen = self.stage.app.seen(use, f"reads {clean(source)} at run time: copied along")
                if all(e.at != seen.at for e in self.evidence):
                    self.evidence.append(seen)
                return

    def _not_brought(self, wanted: tuple[str, ...]) -> None:
        for path in wanted:
            if self.stage.application.source(path) is None and not THERE_ALWAYS.match(path):
                use = next(u for u in self.uses if u.what and (u.what.startswith(path) or path.startswith(folder(u.what))))
                seen = self.stage.app.seen(use, "reads or writes it")
                claim = f"{path} need not be there when the program starts: no COPY brings it"
                self.checks.append(Check(claim, holds=None, evidence=(seen,)))

    def _roots(self, copy: Copy, wanted: tuple[str, ...] | None) -> Iterator[tuple[str, str]]:
        """The files and folders of a copy to carry over: those in `wanted`, or all but sources and papers; as high up as they
        stand in the context."""
        for placement in copy.placements or ():
            if not placement.is_folder:
                named = wanted is not None and placement.path in wanted
                if named or (_is_in(placement.path, wanted) and not _PAPERS.search(placement.source)):
                    yield placement.source, placement.path
                continue
            for name in self.context.names(placement.source):
                source, container = posixpath.join(placement.source, name), posixpath.join(placement.path, name)
                yield from self._of_folder(source, container, wanted)

    def _of_folder(self, source: str, container: str, wanted: tuple[str, ...] | None) -> Iterator[tuple[str, str]]:
        if wanted is None:
            if not _PAPERS.search(source) and self.has_data(source):
                yield source, container
            return
        if container in wanted or (_is_in(container, wanted) and not _PAPERS.search(source)):
            yield source, container
            return
        for path in wanted:
            inner = posixpath.join(source, path[len(container) + 1 :])
            if path.startswith(container + "/") and self.context.kind(inner) is not None:
                yield inner, path

    def has_data(self, source: str) -> bool:
        """Whether a file is no source, or a folder has one that is not."""
        if not self.context.is_folder(source):
            return not source.endswith(".go")
        return any(not f.endswith((".go", ".md")) for f in self.context.walk(source))

    def _destination(self, container: str, *, is_folder: bool) -> str:
        workdir = self.stage.workdir
        base = (workdir or "/").rstrip("/") + "/"
        shown = f"./{container[len(base) :]}" if container.startswith(base) and workdir not in (None, "/") else container
        return shown + "/" if is_folder else shown


def _is_in(container: str, wanted: tuple[str, ...] | None) -> bool:
    return wanted is None or any(w == container or container.startswith(w.rstrip("/") + "/") for w in wanted)
