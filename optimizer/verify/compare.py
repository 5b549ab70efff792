"""Two images side by side: what differs, and which rewrite announced it. What none announced is a failure."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.rewrite import Aspect, FileChange
from optimizer.verify import images
from optimizer.verify.linkage import Linker, programs
from optimizer.verify.packages import (
    is_for_development,
    language_packages,
    needed_node_folders,
    node_package,
    node_package_at,
    owned_files,
    system_packages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from optimizer.facts import Facts
    from optimizer.rewrite import Key, Rewrite
    from optimizer.verify.images import ImageConfig
    from optimizer.verify.packages import Package
    from optimizer.verify.snapshot import Entry, Snapshot

MAX_DIGEST = 8 << 20
# Caches and what running leaves behind: two builds of one Dockerfile differ there too.
_VOLATILE = re.compile(
    r"^/(tmp|var/cache|var/log|var/tmp|proc|sys|dev)/|/(__pycache__|\.cache|\.npm|\.yarn-cache)(/|$)|\.pyc$|/\.package-lock\.json$"
)
# Parts of names that a bundler makes up anew.
_HASHED = re.compile(
    r"(?<=[._-])(?=[0-9A-Za-z]*\d)(?=[0-9A-Za-z]*[A-Za-z])[0-9A-Za-z]{8,}(?=[./]|$)"  # index-4f3a9b21.js
    r"|(?<=/)(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}(?=/)"  # static/pAk3v_9sTq2bLx81Zc0dE/
    r"|(?<=/)(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}(?=/)"  # dist/0a1b2c3d/
)
_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})
_BIN = re.compile(r"/node_modules/\.bin/")


class Area(Enum):
    """What is compared."""

    BUILD = "build"
    CONFIG = "configuration"
    FILES = "files"
    LINKAGE = "linkage"
    PACKAGES = "packages"
    BEHAVIOUR = "behaviour"


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, in words.

    `by`: the transform that announced it, None for a failure; `count` of alike ones; `suspect`: the rewrite that is known to
    have made it.
    """

    area: Area
    what: str
    by: str | None = None
    count: int = 1
    suspect: Key | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its configuration, and its files."""

    tag: str
    config: ImageConfig
    files: Snapshot


class Comparison:
    """Compares `after` with `before`.

    `facts(n)` are the facts about the document after the first n of the rewrites `applied`.
    """

    def __init__(self, before: Image, after: Image, applied: tuple[Rewrite, ...], facts: Callable[[int], Facts]) -> None:
        self.before = before
        self.after = after
        self.applied = applied
        self._facts = facts
        self._placed: dict[int, dict[str, str]] = {}

    def differences(self) -> Iterator[Difference]:
        """All that differs but the behaviour."""
        yield from self.configuration()
        yield from self.files()
        yield from self.linkage()
        yield from self.packages()

    # ---------------------------------------------------------------- configuration

    def configuration(self) -> Iterator[Difference]:
        for what, by in images.differences(self.before.config, self.after.config, self.applied):
            yield Difference(Area.CONFIG, what, by or self._by_base(what))

    def _by_base(self, what: str) -> str | None:
        """The rewrite that swapped the base, for what the base alone sets: variables and labels that no line names; the shell
        of RUNs, where those are in another stage."""
        field, _, rest = what.partition(" ")
        if field == "Shell:":
            return self._who(FileChange.BUILD)
        name = rest.partition(":")[0]
        keyword = {"Env": "ENV", "Labels": "LABEL"}.get(field)
        facts = (self._facts(count) for count in (0, len(self.applied)))
        lines = (i for found in facts for i in found.document.instructions if i.keyword == keyword)
        own = {pair.name.strip("\"'") for line in lines for pair in line.pairs}
        return None if keyword is None or name in own else self._who(FileChange.BASE)

    def _who(self, change: FileChange) -> str | None:
        """The first applied transform that may make such a change."""
        return next((r.name for r in self.applied if self._may(r, change)), None)

    def _may(self, rewrite: Rewrite, change: FileChange) -> bool:
        meta = rewrite.transform.meta
        if change not in meta.changes_files:
            return False
        is_base = change is FileChange.BASE and Aspect.BASE in meta.may_change
        return not is_base or any(entry.aspect is Aspect.BASE for entry in rewrite.changes)

    # ---------------------------------------------------------------- files

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """The folders that are compared: the working folder, what COPY fills, PATH, and /usr/local."""
        found = {"/usr/local"}
        for image in (self.before, self.after):
            found |= {image.config.workdir, *(p for p in image.config.environment.get("PATH", "").split(":") if p)}
        found |= {path.rpartition("/")[0] for path in self._placements(0)} | self._brought(0)
        return tuple(sorted(folder.rstrip("/") + "/" for folder in found if folder.rstrip("/")))

    def _is_compared(self, path: str) -> bool:
        is_in = path.startswith(self.scope) or path in self._placements(0) or path in self._brought(0)
        return is_in and not _VOLATILE.search(path)

    def files(self) -> Iterator[Difference]:
        """Missing, new, with another owner or mode, links to nowhere, other contents."""
        found: dict[tuple[str, str | None, Key | None], list[str]] = {}
        for kind, path, by, suspect in (*self._missing(), *self._new(), *self._changed()):
            found.setdefault((kind, by, suspect), []).append(path)
        for (kind, by, suspect), paths in found.items():
            if by is None:
                shown = [Difference(Area.FILES, f"{kind}: {path}", None, 1, suspect) for path in sorted(paths)]
                yield from shown[:_SHOWN]
                if len(shown) > _SHOWN:
                    yield Difference(Area.FILES, f"{kind}: {len(shown) - _SHOWN} more", None, len(shown) - _SHOWN, suspect)
            else:
                first = min(paths, key=lambda path: (path.count("/"), path))
                yield Difference(Area.FILES, f"{kind}: {first}" + (" and others" if len(paths) > 1 else ""), by, len(paths))

    def _missing(self) -> Iterator[tuple[str, str, str | None, Key | None]]:
        before, after = self.before.files, self.after.files
        full = _folders_with_something(before)
        gone = [
            path
            for path, entry in before.entries.items()
            if self._is_compared(path) and not (entry.kind == "folder" and path in full) and not _is_there(after, path)
        ]
        renamed = Counter(
            _HASHED.sub("*", path) for path in after.entries if path not in before.entries and not after.is_of_base(path)
        )
        for path in gone:
            alike = _HASHED.sub("*", path)
            if alike != path and renamed[alike] > 0:
                renamed[alike] -= 1
                continue
            by, suspect = self._who_lost(path)
            yield f"missing, {by[1].value}" if by else "missing", path, by[0] if by else None, suspect

    def _who_lost(self, path: str) -> tuple[tuple[str, FileChange] | None, Key | None]:
        """The rewrite that announced that `path` goes, and as what; else the one that is known to have lost it."""
        end = len(self.applied)
        if path in self._placements(0):
            if path in self._placements(end):
                return None, None
            lost = next(n for n in range(1, end + 1) if path not in self._placements(n))
            rewrite = self.applied[lost - 1]
            allowed = next((c for c in (FileChange.IGNORED, FileChange.BUILD) if self._may(rewrite, c)), None)
            return ((rewrite.name, allowed), None) if allowed else (None, rewrite.key)
        for change, holds in (
            (FileChange.BASE, self.before.files.is_of_base(path)),
            (FileChange.PACKAGES, path in self._owned),
            (FileChange.DEVELOPMENT, self._is_of_development(path)),
            (FileChange.BUILD, not self._is_brought(path)),
        ):
            if holds and (name := self._who(change)) is not None:
                return (name, change), None
        return None, None

    @cached_property
    def _owned(self) -> frozenset[str]:
        """The files of system packages that are no longer there."""
        before, after = system_packages(self.before.files), system_packages(self.after.files)
        gone = (before or frozenset()) - (after or frozenset())
        return frozenset(owned_files(self.before.files, gone)) if gone else frozenset()

    @cached_property
    def _needed(self) -> frozenset[str]:
        return needed_node_folders(self.before.files)

    @cached_property
    def _needed_packages(self) -> frozenset[Package]:
        """The Node packages, with their versions, that are not for development alone."""
        files = self.before.files
        manifests = (path for path in files.entries if (at := node_package_at(path)) and path == f"{at[0]}/package.json")
        found = (path for path in manifests if not is_for_development(files, path.removesuffix("/package.json"), self._needed))
        return frozenset(package for path in found if (package := node_package(files, path)) is not None)

    def _is_of_development(self, path: str) -> bool:
        """Whether `path` belongs to a Node package that production does not need."""
        files = self.before.files
        found = node_package_at((files.resolve(path) or path) if _BIN.search(path) else path)
        return found is not None and is_for_development(files, found[0], self._needed)

    def _brought(self, count: int) -> frozenset[str]:
        """Where the final stage, after `count` rewrites, puts what it copies from other stages."""
        facts = self._facts(count)
        copies = (i for stage in facts.shipped for i in stage.body if i.keyword == "COPY" and i.flag("from") is not None)
        paths = (facts.state(copy).path(copy.destination) for copy in copies)
        return frozenset(path for path in paths if path is not None and path != "/")

    def _is_brought(self, path: str) -> bool:
        """Whether `path` is where the rewritten Dockerfile puts something of another stage."""
        return any(path == folder or path.startswith(f"{folder}/") for folder in self._brought(len(self.applied)))

    def _placements(self, count: int) -> dict[str, str]:
        """Where the Dockerfile after `count` rewrites puts which files of the build context, as far as one can tell."""
        if count not in self._placed:
            facts = self._facts(count)
            self._placed[count] = {
                path: source
                for stage in reversed(facts.shipped)
                for copy in facts.copies(stage)
                for source in facts.files_of(copy)
                if (path := copy.container_path(source)) is not None
            }
        return self._placed[count]

    def _new(self) -> Iterator[tuple[str, str, str | None, Key | None]]:
        before, after = self.before.files, self.after.files
        lost = Counter(_HASHED.sub("*", path) for path in before.entries if path not in after.entries)
        for path, entry in after.entries.items():
            if not self._is_compared(path) or entry.kind == "folder" or _is_there(before, path):
                continue
            if after.is_of_base(path):
                yield "new, of the base image", path, self._who(FileChange.BASE), None
            elif not (lost[_HASHED.sub("*", path)] and _HASHED.search(path)):
                by = self._who(FileChange.ADDED)
                if path in self._placements(len(self.applied)) or self._is_brought(path):
                    by = by or self._who(FileChange.BASE) or "the Dockerfile"
                yield "new", path, by, None

    def _changed(self) -> Iterator[tuple[str, str, str | None, Key | None]]:
        before, after = self.before.files, self.after.files
        user = _ids(after, self.after.config.user)
        for path, old in before.entries.items():
            new = after.entries.get(path)
            if new is None or not self._is_compared(path):
                continue
            of_base = self._who(FileChange.BASE) if after.is_of_base(path) else None
            if (old.uid, old.gid) != (new.uid, new.gid):
                is_users = (new.uid, new.gid) in user
                by = of_base or (self._who(FileChange.OWNER) if is_users else None)
                yield f"owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}", path, by, None
            if old.mode != new.mode and old.kind == new.kind != "link":
                yield f"mode {old.mode:o} -> {new.mode:o}", path, of_base, None
            if new.kind == "link" and after.resolve(path) is None and before.resolve(path) is not None:
                by = of_base or (self._who(FileChange.DEVELOPMENT) if _BIN.search(path) else None)
                yield f"link to nowhere ({new.link})", path, by, None
            elif (was := _kind(before, path)) != (now := _kind(after, path)):
                yield f"{was} that became a {now}", path, of_base, None
            elif self._has_other_contents(path, old, new):
                yield "other contents than the build context has", path, None, None

    def _has_other_contents(self, path: str, old: Entry, new: Entry) -> bool:
        """Whether a file that the original brought from the build context, unchanged, is another one now."""
        source = self._placements(0).get(path)
        if source is None or old.kind != "file" or new.kind != "file" or max(old.size, new.size) > MAX_DIGEST:
            return False
        if self.before.files.digest(path) == self.after.files.digest(path):
            return False
        root = self._facts(0).context.root
        try:
            data = (root / source).read_bytes() if root is not None else b""
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == self.before.files.digest(path)

    # ---------------------------------------------------------------- linkage

    @cached_property
    def _linkers(self) -> tuple[Linker, Linker]:
        old, new = self.before, self.after
        return Linker(old.files, old.config.environment), Linker(new.files, new.config.environment)

    def linkage(self) -> Iterator[Difference]:
        """Libraries, symbol versions and interpreters that the original had and the new image has not."""
        old, new = self._linkers
        files = self.after.files
        removed = {path.rpartition("/")[2] for layer, path, was in files.replaced if layer >= files.base > was}
        lacking: dict[str, list[str]] = {}
        for path in programs(files):
            for what in new.missing(path):
                if files.is_of_base(path) and what.rpartition(" ")[2].rpartition("/")[2] not in removed:
                    continue  # the base image ships it so
                if what not in self._missed_before(old, path):
                    lacking.setdefault(what, []).append(path)
        for what, paths in lacking.items():
            yield Difference(Area.LINKAGE, f"{paths[0]} {what}", count=len(paths))
        for path in self._scripts():
            name = new.interpreter(path)
            if name is not None and (path not in self.before.files.entries or old.interpreter(path) is None):
                yield Difference(Area.LINKAGE, f"{path} needs the interpreter {name}")

    def _missed_before(self, linker: Linker, path: str) -> set[str]:
        """What the same program, or one of its name elsewhere, lacked in the original."""
        name = path.rpartition("/")[2]
        places = [path] if path in self.before.files.entries else self._by_name.get(name, [])
        return {what for place in places for what in linker.missing(place)}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path, entry in self.before.files.entries.items():
            if entry.kind == "file":
                found.setdefault(path.rpartition("/")[2], []).append(path)
        return found

    def _scripts(self) -> Iterator[str]:
        """The image's own files that may be started as programs: in PATH's folders, in what it starts, brought by a COPY."""
        after = self.after.files
        folders = tuple(f"{folder.rstrip('/')}/" for folder in self._linkers[1].path)
        started = {real for word in self.after.config.start if word.startswith("/") and (real := after.resolve(word))}
        started |= self._placements(0).keys()
        for path, entry in after.entries.items():
            is_own = entry.kind == "file" and entry.mode & 0o111 and entry.layer >= after.base
            if is_own and (path in started or path.startswith(folders)):
                yield path

    # ---------------------------------------------------------------- packages

    def packages(self) -> Iterator[Difference]:
        """Packages of Python, Node and Ruby that are gone, or of another version."""
        before = language_packages(self.before.files, with_base=False)
        after = language_packages(self.after.files, with_base=True)
        there: dict[tuple[str, str], set[str]] = {}
        for package in after:
            there.setdefault((package.kind, package.name), set()).add(package.version)
        announced: dict[str, list[Package]] = {}
        for package in sorted(before - after):
            versions = there.get((package.kind, package.name))
            by = self._who_dropped(package)
            if by is not None:
                announced.setdefault(by, []).append(package)
            elif versions is None:
                yield Difference(Area.PACKAGES, f"{package} ({package.kind}) is gone")
            else:
                yield Difference(Area.PACKAGES, f"{package} ({package.kind}) became {', '.join(sorted(versions))}")
        for by, packages in announced.items():
            names = ", ".join(str(p) for p in packages[:3]) + (", ..." if len(packages) > 3 else "")
            yield Difference(Area.PACKAGES, f"not installed: {names}", by, len(packages))

    def _who_dropped(self, package: Package) -> str | None:
        if package.kind == "python" and package.name in _INSTALLERS:
            return self._who(FileChange.BUILD)
        if package.kind == "node" and package not in self._needed_packages:
            return self._who(FileChange.DEVELOPMENT)
        return None


_SHOWN = 10


def _is_there(snapshot: Snapshot, path: str) -> bool:
    if path in snapshot.entries:
        return True
    folder, _, name = path.rpartition("/")
    real = snapshot.resolve(folder) if folder else None
    return real is not None and real != folder and f"{real}/{name}" in snapshot.entries


def _kind(snapshot: Snapshot, path: str) -> str:
    entry = snapshot.find(path)
    return "link to nowhere" if entry is None else entry.kind


def _folders_with_something(snapshot: Snapshot) -> set[str]:
    return {path.rpartition("/")[0] for path in snapshot.entries}


def _ids(snapshot: Snapshot, user: str) -> set[tuple[int, int]]:
    """The user and group ids that `USER` may mean in an image."""
    name, _, group = user.partition(":")
    found = set()
    for line in (snapshot.text("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and name in (fields[0], fields[2]) and fields[2].isdecimal() and fields[3].isdecimal():
            found.add((int(fields[2]), int(fields[3])))
    groups = (line.split(":") for line in (snapshot.text("/etc/group") or "").splitlines())
    number = group if group.isdecimal() else next((g[2] for g in groups if group and g[0] == group and len(g) > 2), "")
    if name.isdecimal():
        found.add((int(name), 0))
        found.add((int(name), int(name)))
    if number.isdecimal():
        found |= {(uid, int(number)) for uid, _ in found}
    return found


def failures(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """Those that no rewrite announced."""
    return tuple(difference for difference in differences if difference.by is None)
