"""The files of an image, layer by layer, without running it.

Read from the folders of the overlay driver where we may (less than a second for a full image), else from the archive that
`save` writes. Paths are absolute container paths. What a layer deletes stands in it as a whiteout; what lies in a lower layer
and is deleted or written again above is waste: it is shipped, and nobody sees it.
Source: the OCI image specification, "Image Layer Filesystem Changeset"; the kernel's documentation of overlayfs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import stat
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.verify.elf import Elf, read_elf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from optimizer.verify.builders import Builder

MAX_KEPT = 8 << 20
_MAX_LINKS = 40
# Small files whose text the comparison reads: accounts, package lists, manifests, the linker's folders.
_KEPT = re.compile(
    r"^/etc/(passwd|group|os-release|ld\.so\.conf|ld\.so\.conf\.d/.*\.conf)$|^/usr/lib/os-release$"
    r"|^/var/lib/dpkg/(status|status\.d/.*|info/.*\.list)$|^/lib/apk/db/installed$|/package\.json$"
)
LIBRARY = re.compile(r"\.so(\.[\w.+-]+)?$|\.node$")


@dataclass(frozen=True, slots=True)
class Program:
    """What a file needs to run: its ELF header, or the line of a script that names its interpreter; neither for other files."""

    elf: Elf | None = None
    interpreter: str = ""


@dataclass(slots=True)
class Entry:
    """A file, folder, link or something else ("file", "folder", "link", "other"), as the last layer that has it left it.

    `layer` counts from 0. `digest` and `program` are filled when asked for, or while the archive goes by; `source` is where a
    file's bytes are on this machine, `text` what was kept of them where they are not.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    layer: int
    link: str = ""
    program: Program | None = None
    source: Path | None = None
    text: bytes | None = None
    digest: str = ""


@dataclass(slots=True)
class Snapshot:
    """An image's files; `base` is the number of its layers that came with the base image, `wasted` bytes nobody sees.

    `replaced` tells what stood in a lower layer and was deleted or replaced: the layer that did, the path, the layer it was in.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    layers: int = 0
    base: int = 0
    wasted: int = 0
    replaced: list[tuple[int, str, int]] = field(default_factory=list)

    def is_of_base(self, path: str) -> bool:
        """Whether a file is the base image's own, untouched by the layers above."""
        entry = self.entries.get(path)
        return entry is not None and entry.layer < self.base

    def lose(self, path: str, layer: int) -> None:
        """Take out what stands at `path`, since `layer` deletes or replaces it."""
        entry = self.entries.pop(path)
        self.wasted += entry.size
        self.replaced.append((layer, path, entry.layer))

    def resolve(self, path: str) -> str | None:
        """The path that `path` really is, links followed; None where it leads nowhere."""
        place, links = "", 0
        waiting = path.split("/")[::-1]
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                place = place.rpartition("/")[0]
                continue
            entry = self.entries.get(f"{place}/{part}")
            if entry is None or entry.kind != "link":
                place = f"{place}/{part}"
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            place = "" if entry.link.startswith("/") else place
            waiting += entry.link.split("/")[::-1]
        return place or "/" if not place or place in self.entries else None

    def find(self, path: str) -> Entry | None:
        """What stands at `path`, links followed."""
        real = self.resolve(path)
        return None if real is None else self.entries.get(real)

    def text(self, path: str) -> str | None:
        """The text of one of the small files that the comparison reads; None where there is none."""
        entry = self.find(path)
        if entry is None or entry.kind != "file":
            return None
        data = entry.text if entry.source is None else _head(entry.source, MAX_KEPT)
        return None if data is None else data.decode("utf-8", "replace")

    def program(self, path: str) -> Program:
        """What the file at `path` needs to run. Only files that may be run or loaded are looked into."""
        entry = self.entries[path]
        if entry.program is None:
            entry.program = Program()
            if entry.kind == "file" and entry.source is not None and _may_run(path, entry.mode):
                with entry.source.open("rb") as file:
                    entry.program = _look_inside(file)
        return entry.program

    def digest(self, path: str) -> str:
        """A regular file's SHA-256; empty for anything else."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != "file":
            return ""
        if not entry.digest and entry.source is not None:
            with entry.source.open("rb") as file:
                entry.digest = hashlib.file_digest(file, "sha256").hexdigest()
        return entry.digest


@dataclass(slots=True)
class _Layer:
    """One layer's own entries, what it deletes, and the folders of which it hides all that was below."""

    entries: dict[str, Entry] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)


def take(builder: Builder, tag: str, described: dict[str, Any]) -> Snapshot:
    """The files of the image `tag`, which `inspect` described so. `base` is left at 0. Raises BuilderError."""
    folders = _overlay_folders(described)
    layers = [_from_folder(folder) for folder in folders] if folders is not None else _from_archive(builder, tag)
    return _merged(layers)


def _merged(layers: list[_Layer]) -> Snapshot:
    found = Snapshot(layers=len(layers))
    entries = found.entries
    for number, layer in enumerate(layers):
        gone = set(layer.deleted)
        for path in layer.opaque:
            gone |= {f"{path.rstrip('/')}/{name}" for name in _children(entries, path)}
        if gone:
            for path in [p for p in entries if p in gone or _is_below(p, gone)]:
                found.lose(path, number)
        for path, entry in layer.entries.items():
            entry.layer = number
            old = entries.get(path)
            if old is not None and old.kind == "folder" and entry.kind == "folder":
                entry.layer = old.layer if (old.mode, old.uid, old.gid) == (entry.mode, entry.uid, entry.gid) else number
            elif old is not None:
                for below in [p for p in entries if p.startswith(f"{path}/")] if old.kind == "folder" else ():
                    found.lose(below, number)
                found.lose(path, number)
            entries[path] = entry
    return found


def _children(entries: dict[str, Entry], folder: str) -> set[str]:
    prefix = folder.rstrip("/") + "/"
    return {path[len(prefix) :].partition("/")[0] for path in entries if path.startswith(prefix)}


def _is_below(path: str, folders: set[str]) -> bool:
    while path := path.rpartition("/")[0]:
        if path in folders:
            return True
    return False


# -------------------------------------------------------------------- the overlay driver's folders


def _overlay_folders(described: dict[str, Any]) -> list[Path] | None:
    """The folders of an image's layers, lowest first; None where the driver is another, or we may not read them."""
    driver = described.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    if driver.get("Name") not in ("overlay2", "overlay") or "UpperDir" not in data:
        return None
    lower = [Path(part) for part in data.get("LowerDir", "").split(":") if part]
    folders = [*reversed(lower), Path(data["UpperDir"])]
    readable = all(os.access(folder, os.R_OK | os.X_OK) for folder in folders)
    return folders if readable and os.geteuid() == 0 else None


def _from_folder(root: Path) -> _Layer:
    layer = _Layer()
    linked: set[int] = set()
    waiting = [(str(root), "")]
    while waiting:
        folder, path = waiting.pop()
        with os.scandir(folder) as found:
            for item in found:
                place = f"{path}/{item.name}"
                if item.is_dir(follow_symlinks=False):
                    waiting.append((item.path, place))
                status = item.stat(follow_symlinks=False)
                _enter(layer, place, item.path, status)
                if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
                    if status.st_ino in linked:
                        layer.entries[place].size = 0  # another name of what is counted already
                    linked.add(status.st_ino)
    return layer


def _enter(layer: _Layer, path: str, real: str, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        layer.deleted.append(path)
        return
    entry = Entry("other", mode, status.st_uid, status.st_gid, 0, 0)
    if stat.S_ISDIR(status.st_mode):
        entry.kind = "folder"
        if b"y" in {_attribute(real, f"{space}.overlay.opaque") for space in ("trusted", "user")}:
            layer.opaque.append(path)
    elif stat.S_ISLNK(status.st_mode):
        entry.kind, entry.link = "link", str(Path(real).readlink())
    elif stat.S_ISREG(status.st_mode):
        entry.kind, entry.size, entry.source = "file", status.st_size, Path(real)
    layer.entries[path] = entry


def _attribute(path: str, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return b""  # it has no such attribute


def _may_run(path: str, mode: int) -> bool:
    return bool(mode & 0o111) or LIBRARY.search(path) is not None


def _look_inside(file: IO[bytes]) -> Program:
    head = file.read(4)
    if head == b"\x7fELF":
        return Program(elf=read_elf(file))
    if head[:2] == b"#!":
        file.seek(0)
        return Program(interpreter=file.readline(512)[2:].decode("utf-8", "replace").strip())
    return Program()


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


# -------------------------------------------------------------------- the archive of `save`


def _from_archive(builder: Builder, tag: str) -> list[_Layer]:
    """The layers in the archive of an image. It goes by once more where hard links show that more had to be kept of a file."""
    late: set[str] = set()
    found = _read_archive(builder, tag, late)
    return _read_archive(builder, tag, set(), frozenset(late)) if late else found


def _read_archive(builder: Builder, tag: str, late: set[str], also: frozenset[str] = frozenset()) -> list[_Layer]:
    """`also` are files to keep whatever their name; `late` is given those whose other names came too late."""
    layers: dict[str, _Layer] = {}
    blobs: dict[str, bytes] = {}
    links: dict[str, str] = {}
    with builder.commands.stream(*builder.save(tag)) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            name = posixpath.normpath(member.name)
            file = archive.extractfile(member) if member.isfile() else None
            if member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            if file is None:
                continue
            if member.size < MAX_KEPT and not name.endswith(".tar"):
                blobs[name] = file.read()
            else:
                layers[name] = _from_tar(file, late, also)
    manifest = json.loads(blobs["manifest.json"])[0]
    found = []
    for name in manifest["Layers"]:
        real = links.get(name, name)
        found.append(layers[real] if real in layers else _from_tar(io.BytesIO(blobs[real]), late, also))
    return found


def _from_tar(file: IO[bytes], late: set[str], also: frozenset[str]) -> _Layer:
    layer = _Layer()
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            path = _absolute(member.name)
            folder, _, name = path.rpartition("/")
            if path == "/":
                continue
            if name == ".wh..wh..opq":
                layer.opaque.append(folder)
            elif name.startswith(".wh."):
                layer.deleted.append(f"{folder}/{name[4:]}")
            else:
                layer.entries[path] = _from_member(archive, member, path, layer, also)
                first = _absolute(member.linkname) if member.islnk() else ""
                if first and first not in also and _is_wanted(path, member.mode) and not _is_wanted(first, member.mode):
                    late.add(first)
    return layer


def _from_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, layer: _Layer, also: frozenset[str]) -> Entry:
    entry = Entry("other", stat.S_IMODE(member.mode), member.uid, member.gid, 0, 0)
    if member.isdir():
        entry.kind = "folder"
    elif member.issym():
        entry.kind, entry.link = "link", member.linkname
    elif member.islnk():  # a hard link is a second name of a file that stands before it
        first = layer.entries.get(_absolute(member.linkname))
        if first is not None:
            entry = replace(first, size=0)
    elif member.isfile():
        entry.kind, entry.size = "file", member.size
        file = archive.extractfile(member)
        assert file is not None
        _read_member(entry, file, is_wanted=path in also or _is_wanted(path, entry.mode))
    return entry


def _is_wanted(path: str, mode: int) -> bool:
    """Whether more than the digest of a file will be asked for."""
    return _KEPT.search(path) is not None or _may_run(path, mode)


def _read_member(entry: Entry, file: IO[bytes], *, is_wanted: bool) -> None:
    """Keep what will be asked for later: the stream goes by."""
    entry.program = Program()
    if is_wanted:
        data = file.read()
        entry.digest = hashlib.sha256(data).hexdigest()
        entry.program = _look_inside(io.BytesIO(data))
        entry.text = data if entry.size <= MAX_KEPT and entry.program == Program() else None
    else:
        entry.digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _absolute(name: str) -> str:
    return posixpath.normpath("/" + name.lstrip("/"))


def texts(snapshot: Snapshot, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """The kept files whose path matches, with their text."""
    for path in list(snapshot.entries):
        if pattern.search(path) and (text := snapshot.text(path)) is not None:
            yield path, text
