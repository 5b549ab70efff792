"""The build context: the folder that is sent to the builder, seen through its `.dockerignore`.

Read-only and lazy. What is read is untrusted: sizes are capped, and links are reported, never followed. Paths are relative to
the context, with `/`, and "" for the context itself.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import Pattern, clean, has_wildcard, ignoring, matches, read_ignore_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from optimizer.facts.compose import Service
    from optimizer.facts.uses import Reading

MAX_BYTES = 8 << 20
MAX_FILES = 50_000
MAX_READ_FILES, MAX_READ_BYTES = 2_000, 8 << 20
MAX_NEIGHBOURS = 200
DOCKERFILE = re.compile(r"(^|/)(Dockerfile|Containerfile)([._-][^/]*)?$|\.Dockerfile$", re.IGNORECASE)
_OVERLAY_STAT = "file"


@dataclass(frozen=True)
class BuildContext:
    """A build context.

    `root` None means that nothing is known of it: no path exists, and `is_known` says so. `files` lies over the folder: the
    companion files that rewrites have created so far (and, in tests, a context without a folder). `dockerfile` is the
    Dockerfile's path below the context, or None where it lies outside. `guess` says what speaks for another folder as the
    context; empty where nothing does. `services` are those of compose files that build the Dockerfile.
    """

    root: Path | None
    dockerfile: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    shown_as: str = ""
    guess: str = ""
    services: tuple[Service, ...] = ()
    _cache: dict[str, object] = field(default_factory=dict, compare=False, repr=False)
    _readings: dict[object, Reading] = field(default_factory=dict, compare=False, repr=False)
    _mentions: dict[re.Pattern[str], tuple[str, int] | bool] = field(default_factory=dict, compare=False, repr=False)
    _neighbours: list[tuple[tuple[str, str], ...]] = field(default_factory=list, compare=False, repr=False)

    @property
    def is_known(self) -> bool:
        return self.root is not None or bool(self.files)

    def with_files(self, files: Mapping[str, str]) -> BuildContext:
        """This context with `files` (path below the context: text) created in it."""
        return BuildContext(self.root, self.dockerfile, {**self.files, **files}, self.shown_as, self.guess, self.services)

    def shown(self, path: str) -> str:
        """`path` as the user would type it."""
        return posixpath.join(self.shown_as, path) if self.shown_as else path

    def shown_path(self, path: str) -> str:
        """An absolute path as the user would type it, where it lies in the context; else as it is."""
        inside = self.root is not None and path.startswith(f"{self.root}/")
        return self.shown(path.removeprefix(f"{self.root}/")) if inside else path

    # ---------------------------------------------------------------- .dockerignore

    @cached_property
    def ignore_path(self) -> str | None:
        """The ignore file in force: `<Dockerfile>.dockerignore` if there is one, else `.dockerignore`; None without one."""
        own = f"{self.dockerfile}.dockerignore" if self.dockerfile else None
        for path in (own, ".dockerignore"):
            if path is not None and self._kind(path) is not None:
                return path
        return None

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        return read_ignore_file(self.ignore_bytes().decode("utf-8", "replace"))

    def ignore_bytes(self) -> bytes:
        """What the ignore file in force holds; nothing without one."""
        if self.ignore_path is None:
            return b""
        is_link = self._kind(self.ignore_path) == "link"  # the builder follows it
        return (self._inside_link(self.ignore_path) if is_link else self._bytes(self.ignore_path)) or b""

    def ignored_by(self, path: str) -> Pattern | None:
        """The `.dockerignore` line that keeps `path` from the builder."""
        return ignoring(self.patterns, clean(path)) if self.patterns else None

    # ---------------------------------------------------------------- files

    def kind(self, path: str) -> str | None:
        """ "file", "folder", "link" or "other" (a pipe, a socket) for what the builder gets; None where it gets nothing."""
        path = clean(path)
        if path == "":
            return "folder" if self.is_known else None
        if path.startswith("../") or path == "..":
            return None
        found = self._kind(path)
        if found is None or self._is_behind_link(path):
            return None
        if found != "folder" and self.ignored_by(path) is not None:
            return None
        if found == "folder" and self.ignored_by(path) is not None:
            return "folder" if any(p.is_exception for p in self.patterns) and self.has_files(path) else None
        return found

    def is_file(self, path: str) -> bool:
        return self.kind(path) == "file"

    def is_folder(self, path: str) -> bool:
        return self.kind(path) == "folder"

    def read(self, path: str) -> str | None:
        """The text of a file that the builder gets, undecodable bytes replaced; None if there is none or it is too large."""
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes | None:
        path = clean(path)
        return self._bytes(path) if self.is_file(path) else None

    def reading(self, path: str, key: object, read: Callable[[bytes], Reading]) -> Reading:
        """What `read` makes of the bytes of a file, made once for each `key`: the facts are new after every rewrite, the files
        are not."""
        if (path, key) not in self._readings:
            self._readings[path, key] = read(self.read_bytes(path) or b"")
        return self._readings[path, key]

    def mentions(self, pattern: re.Pattern[str]) -> tuple[str, int] | bool:
        """The first file that the builder gets in which `pattern` is found, and the line; False where none has it, True where
        there is more to read than MAX_READ_FILES or MAX_READ_BYTES. The Dockerfile and its ignore file do not count."""
        if pattern not in self._mentions:
            self._mentions[pattern] = self._search(pattern)
        return self._mentions[pattern]

    def _search(self, pattern: re.Pattern[str]) -> tuple[str, int] | bool:
        budget, left = MAX_READ_BYTES, MAX_READ_FILES
        for path in self.walk():
            if path in (self.dockerfile, self.ignore_path):
                continue
            text = self.read(path)
            budget, left = budget - len(text or ""), left - 1
            if budget < 0 or left < 0:
                return True
            if text is not None and (match := pattern.search(text)) is not None:
                return path, text.count("\n", 0, match.start()) + 1
        return False

    def neighbours(self) -> tuple[tuple[str, str], ...]:
        """The other Dockerfiles of the build context, and those in the folders beside it in the same repository: their paths as
        the user would type them, and their texts."""
        if not self._neighbours:
            self._neighbours.append(tuple(self._read_neighbours()))
        return self._neighbours[0]

    def _read_neighbours(self) -> Iterator[tuple[str, str]]:
        for path in self.walk():
            if path != self.dockerfile and DOCKERFILE.search(path) and (text := self.read(path)) is not None:
                yield self.shown(path), text
        root = self.root
        above = root.parent if root is not None else None
        if above is None or not any((folder / ".git").exists() for folder in (above, *above.parents[:3])):
            return
        beside = (p for p in above.glob("*/*") if DOCKERFILE.search(p.name) and p.parent != root and not p.is_symlink())
        for place in sorted(beside)[:MAX_NEIGHBOURS]:
            if place.is_file() and place.stat().st_size <= MAX_BYTES:
                shown = posixpath.join(self.shown_as, "..", place.relative_to(above).as_posix())
                yield shown, place.read_text("utf-8", "replace")

    def names_of_image(self) -> frozenset[str]:
        """What the image may be called: as the folder of the Dockerfile, and those above it in the context."""
        if self.root is None:
            return frozenset()
        folders = posixpath.dirname(self.dockerfile or "").split("/")
        return frozenset(name.lower() for name in (self.root.name, *folders) if name)

    def has_files(self, path: str) -> bool:
        """Whether the builder gets any file below `path`."""
        return next(self.walk(path), None) is not None

    def walk(self, path: str = "") -> Iterator[str]:
        """Files and links below `path` that the builder gets, in sorted order; at most MAX_FILES are looked at."""
        may_return = any(p.is_exception for p in self.patterns)
        budget = MAX_FILES
        folders = [clean(path)]
        while folders:
            here = folders.pop()
            for name, kind in sorted(self._entries(here).items(), reverse=True):
                budget -= 1
                full = posixpath.join(here, name)
                ignored = self.ignored_by(full) is not None
                if kind == "folder" and (not ignored or may_return):
                    folders.append(full)
                elif kind != "folder" and not ignored:
                    yield full
            if budget < 0:
                return

    def names(self, folder: str) -> tuple[str, ...]:
        """What the builder gets directly in `folder`."""
        here = clean(folder)
        return tuple(n for n in sorted(self._entries(here)) if self.kind(posixpath.join(here, n)) is not None)

    def glob(self, pattern: str) -> tuple[str, ...]:
        """The paths that a COPY source stands for: itself, or what its wildcards match; empty where nothing is there."""
        path = clean(pattern)
        if not has_wildcard(path):
            return (path,) if self.kind(path) is not None else ()
        depth = path.count("/")
        found = [""]
        for level in range(depth + 1):
            part = "/".join(path.split("/")[: level + 1])
            candidates = [posixpath.join(folder, name) for folder in found for name in self._entries(folder)]
            found = [c for c in candidates if matches(part, c)]
        return tuple(sorted(c for c in found if self.kind(c) is not None))

    def is_executable(self, path: str) -> bool | None:
        """Whether a file has an execute bit; None where that cannot be known."""
        if self.root is None or clean(path) in self.files:
            return None
        return bool((self.root / clean(path)).lstat().st_mode & stat.S_IXUSR)

    def is_private(self, path: str) -> bool:
        """Whether a file can be read by its owner alone."""
        if self.root is None or clean(path) in self.files:
            return False
        try:
            return not (self.root / clean(path)).lstat().st_mode & stat.S_IROTH
        except OSError:
            return False  # it is gone: nothing is copied

    def is_git_ignored(self, paths: list[str]) -> bool:
        """Whether the `.gitignore` at the context's root leaves all of `paths` out: none of them is ever committed."""
        data = self._bytes(".gitignore") if self._kind(".gitignore") == "file" else None
        if data is None:
            return False
        from pathspec import GitIgnoreSpec

        spec = GitIgnoreSpec.from_lines(data.decode("utf-8", "replace").splitlines())
        return all(spec.match_file(path) for path in paths)

    def is_on_disk(self, path: str) -> bool:
        """Whether the folder has something of that name that no rewrite has created."""
        return self.root is not None and (self.root / clean(path)).exists()

    # ---------------------------------------------------------------- the disk

    def _bytes(self, path: str) -> bytes | None:
        if path in self.files:
            return self.files[path].encode("utf-8", "surrogateescape")
        if self.root is None:
            return None
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError:
            return None  # unreadable is unknown: the caller sees no content and makes no claim
        return data if len(data) <= MAX_BYTES else None

    def _inside_link(self, path: str) -> bytes | None:
        """What a link leads to, if that lies in the context too."""
        target = (self.root / path).resolve() if self.root is not None else None
        if target is None or self.root is None or not target.is_relative_to(self.root.resolve()) or not target.is_file():
            return None
        return self._bytes(target.relative_to(self.root.resolve()).as_posix())

    def _kind(self, path: str) -> str | None:
        folder, name = posixpath.split(path)
        return self._entries(folder).get(name)

    def _is_behind_link(self, path: str) -> bool:
        folder = posixpath.dirname(path)
        while folder:
            if self._kind(folder) == "link":
                return True
            folder = posixpath.dirname(folder)
        return False

    def _entries(self, folder: str) -> dict[str, str]:
        cached = self._cache.get(folder)
        if cached is None:
            cached = self._cache[folder] = self._list(folder)
        assert isinstance(cached, dict)
        return cached

    def _list(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.root is not None and not folder.startswith("..") and not (folder and self._is_link(folder)):
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        found[entry.name] = _entry_kind(entry)
            except OSError:
                found = {}  # a folder that cannot be listed is one of which nothing is known
        prefix = f"{folder}/" if folder else ""
        for path in self.files:
            if path.startswith(prefix):
                name, _, rest = path[len(prefix) :].partition("/")
                found[name] = "folder" if rest else _OVERLAY_STAT
        return found

    def _is_link(self, folder: str) -> bool:
        return self._kind(folder) == "link"


def _entry_kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
