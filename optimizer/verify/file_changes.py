"""The files of two images side by side: what is missing, new or changed, and which rewrite announced it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.facts.places import OF_SYSTEM
from optimizer.rewrite import FileChange
from optimizer.verify.difference import Area, Difference
from optimizer.verify.packages import NodeModules, is_node_program, owned_files, system_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.rewrite import Key
    from optimizer.verify.announcements import Announcements
    from optimizer.verify.difference import Image
    from optimizer.verify.snapshot import Entry, Snapshot

_SHOWN = 10
# What programs read though nothing names it: outside of the folders that are compared, and missed only when it is needed.
_SHARED = {
    "/etc/ssl/certs/ca-certificates.crt": "CA certificates",
    "/usr/share/zoneinfo/Europe/Berlin": "time zones",
    "/usr/lib/locale/C.utf8": "UTF-8 locale",
    "/etc/mime.types": "table of MIME types",
    "/etc/services": "table of services",
}
MAX_DIGEST = 512 << 20
_EMPTY = hashlib.sha256(b"").hexdigest()
# Caches and what running leaves behind: two builds of one Dockerfile differ there too.
_VOLATILE = re.compile(
    r"^/(tmp|var/cache|var/log|var/tmp|var/lib/apt|var/lib/dpkg|proc|sys|dev)/|/(__pycache__|\.cache|\.npm|\.yarn-cache)(/|$)|\.pyc$|/\.package-lock\.json$"
)
# Parts of names that a bundler makes up anew.
_HASHED = re.compile(
    r"(?<=[._-])(?=[0-9A-Za-z]*\d)(?=[0-9A-Za-z]*[A-Za-z])[0-9A-Za-z]{8,}(?=[./]|$)"  # index-4f3a9b21.js
    r"|(?<=/)(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}(?=/)"  # static/pAk3v_9sTq2bLx81Zc0dE/
    r"|(?<=/)(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}(?=/)"  # dist/0a1b2c3d/
)


class FileChanges:
    """Compares the files of `after` with those of `before`."""

    def __init__(self, before: Image, after: Image, announced: Announcements) -> None:
        self.before = before
        self.after = after
        self.announced = announced
        self.modules = NodeModules(before.files)

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """The folders that are compared: the working folder, what COPY fills, PATH, and /usr/local."""
        found = {"/usr/local"}
        for image in (self.before, self.after):
            found |= {image.config.workdir, *(p for p in image.config.environment.get("PATH", "").split(":") if p)}
        found |= {path.rpartition("/")[0] for path in self.announced.placements(0)} | self.announced.brought(0)
        return tuple(sorted(folder.rstrip("/") + "/" for folder in found if folder.rstrip("/")))

    def _is_compared(self, path: str) -> bool:
        is_in = path.startswith(self.scope) or path in self.announced.placements(0) or path in self.announced.brought(0)
        is_in = is_in or path in self._taken or self._is_own(path)
        return is_in and not _VOLATILE.search(path)

    def _is_own(self, path: str) -> bool:
        """Whether the original's own instructions made `path`, in a folder that is not the system's."""
        entry = self.before.files.entries.get(path)
        return entry is not None and entry.layer >= self.before.files.base and OF_SYSTEM.match(path) is None

    def differences(self) -> Iterator[Difference]:
        """Missing, new, with another owner or mode, links to nowhere, other contents; then what the system had for all."""
        yield from self._listed()
        before, after = self.before.files, self.after.files
        for path, what in _SHARED.items():
            if before.find(path) is not None and after.find(path) is None:
                yield Difference(Area.FILES, f"no {what} any more ({path})", self.announced.who(FileChange.BASE))

    def _listed(self) -> Iterator[Difference]:
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
        if path in self._taken:
            return None, None  # the new base has it, and a layer above deletes it
        end = len(self.announced.applied)
        if path in self.announced.placements(0):
            if path in self.announced.placements(end):
                return None, None
            lost = next(n for n in range(1, end + 1) if path not in self.announced.placements(n))
            rewrite = self.announced.applied[lost - 1]
            allowed = next((c for c in (FileChange.IGNORED, FileChange.BUILD) if self.announced.may(rewrite, c)), None)
            return ((rewrite.name, allowed), None) if allowed else (None, rewrite.key)
        for change, holds in (
            (FileChange.BASE, self.before.files.is_of_base(path)),
            (FileChange.PACKAGES, path in self._owned),
            (FileChange.DEVELOPMENT, self.modules.is_for_development(path)),
            (FileChange.BUILD, not self.announced.is_brought(path)),
        ):
            if holds and (name := self.announced.who(change)) is not None:
                return (name, change), None
        return None, None

    @cached_property
    def _taken(self) -> frozenset[str]:
        """What the new base brought, and the layers above took away."""
        after = self.after.files
        gone = {path for layer, path, was in after.replaced if layer >= after.base > was}
        return frozenset(path for path in gone if path not in after.entries)

    @cached_property
    def _owned(self) -> frozenset[str]:
        """The files of system packages that are no longer there."""
        before, after = system_packages(self.before.files), system_packages(self.after.files)
        gone = (before or frozenset()) - (after or frozenset())
        return frozenset(owned_files(self.before.files, gone)) if gone else frozenset()

    def _new(self) -> Iterator[tuple[str, str, str | None, Key | None]]:
        before, after = self.before.files, self.after.files
        lost = Counter(_HASHED.sub("*", path) for path in before.entries if path not in after.entries)
        for path, entry in after.entries.items():
            if not self._is_compared(path) or entry.kind == "folder" or _is_there(before, path):
                continue
            if after.is_of_base(path):
                yield "new, of the base image", path, self.announced.who(FileChange.BASE), None
            elif not (lost[_HASHED.sub("*", path)] and _HASHED.search(path)):
                by = self.announced.who(FileChange.ADDED)
                if path in self.announced.placements(len(self.announced.applied)) or self.announced.is_brought(path):
                    by = by or self.announced.who(FileChange.BASE) or "the Dockerfile"
                yield "new", path, by, None

    def _changed(self) -> Iterator[tuple[str, str, str | None, Key | None]]:
        before, after = self.before.files, self.after.files
        user = _ids(after, self.after.config.user)
        for path, old in before.entries.items():
            new = after.entries.get(path)
            if new is None or not self._is_compared(path):
                continue
            of_base = self.announced.who(FileChange.BASE) if after.is_of_base(path) else None
            if (old.uid, old.gid) != (new.uid, new.gid):
                is_users = (new.uid, new.gid) in user
                by = of_base or (self.announced.who(FileChange.OWNER) if is_users else None)
                yield f"owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}", path, by, None
            if old.mode != new.mode and old.kind == new.kind != "link":
                yield f"mode {old.mode:o} -> {new.mode:o}", path, of_base, None
            if new.kind == "link" and after.resolve(path) is None and before.resolve(path) is not None:
                by = of_base or (self.announced.who(FileChange.DEVELOPMENT) if is_node_program(path) else None)
                yield f"link to nowhere ({new.link})", path, by, None
            elif (was := _kind(before, path)) != (now := _kind(after, path)):
                yield f"{was} that became a {now}", path, of_base, None
            elif self._has_other_contents(path, old, new):
                yield "other contents than the build context has", path, None, None
            elif self._is_emptied(path, old, new):
                yield "empty now", path, None, None

    def _is_emptied(self, path: str, old: Entry, new: Entry) -> bool:
        """Whether nothing is left in a file; the second name of a hard link has no size of its own, but a digest."""
        is_bare = old.kind == new.kind == "file" and old.size > 0 == new.size and not self.after.files.is_of_base(path)
        return is_bare and self.after.files.digest(path) == _EMPTY

    def _has_other_contents(self, path: str, old: Entry, new: Entry) -> bool:
        """Whether a file that the original brought from the build context, unchanged, is another one now."""
        source = self.announced.placements(0).get(path)
        if source is None or old.kind != "file" or new.kind != "file" or max(old.size, new.size) > MAX_DIGEST:
            return False
        if self.before.files.digest(path) == self.after.files.digest(path):
            return False
        root = self.announced.facts(0).context.root
        try:
            data = (root / source).read_bytes() if root is not None else b""
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == self.before.files.digest(path)


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
