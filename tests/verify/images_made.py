"""Images made by hand: layers as folders and as archives, snapshots out of entries, ELF files out of their parts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import struct
import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optimizer.verify.builders import Docker
from optimizer.verify.commands import Commands
from optimizer.verify.images import ImageConfig
from optimizer.verify.snapshot import Entry, Program, Snapshot, _Layer, _merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import IO

    from optimizer.verify.elf import Elf

# ---------------------------------------------------------------- layers, on disk and as archives


@dataclass(frozen=True, slots=True)
class Item:
    """What a layer holds at a path: a "file", "folder", "link", "hard link", "pipe", "whiteout" or "opaque" folder.

    `text` is a file's own, or where a link leads; bytes that are no text are in it as surrogates.
    """

    path: str
    kind: str = "file"
    text: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def data(self) -> bytes:
        return self.text.encode("utf-8", "surrogateescape")


def folder_item(path: str, kind: str = "folder", mode: int = 0o755, uid: int = 0, gid: int = 0) -> Item:
    return Item(path, kind, "", mode, uid, gid)


def lay_out(root: Path, *items: Item) -> Path:
    """A layer as the overlay driver has it on disk. Whiteouts and owners are for root alone."""
    root.mkdir(parents=True)
    for item in items:
        path = root / item.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if item.kind == "whiteout":
            os.mknod(path, 0o020000, os.makedev(0, 0))
            continue
        if item.kind == "link":
            path.symlink_to(item.text)
        elif item.kind == "hard link":
            path.hardlink_to(root / item.text.lstrip("/"))
            continue
        elif item.kind == "pipe":
            os.mkfifo(path)
        elif item.kind == "file":
            path.write_bytes(item.data)
        else:
            path.mkdir(exist_ok=True)
            if item.kind == "opaque":
                os.setxattr(path, "trusted.overlay.opaque", b"y")
        if os.geteuid() == 0:
            os.chown(path, item.uid, item.gid, follow_symlinks=False)
        if item.kind != "link":
            path.chmod(item.mode)
    return root


def packed(*items: Item, prefix: str = "", packing: str = "") -> bytes:
    """The same layer as the tar archive that a registry has; `prefix` stands before every name, `packing` is gz or nothing."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz" if packing else "w") as archive:
        for item in items:
            folder, name = posixpath.split(item.path.lstrip("/"))
            path = posixpath.join(folder, f".wh.{name}") if item.kind == "whiteout" else item.path.lstrip("/")
            member = tarfile.TarInfo(prefix + path)
            member.mode, member.uid, member.gid = item.mode, item.uid, item.gid
            text = b""
            if item.kind in ("folder", "opaque"):
                member.type = tarfile.DIRTYPE
            elif item.kind == "link":
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, item.text, 0o777
            elif item.kind == "hard link":
                member.type, member.linkname = tarfile.LNKTYPE, prefix + item.text.lstrip("/")
            elif item.kind == "pipe":
                member.type = tarfile.FIFOTYPE
            elif item.kind == "file":
                text = item.data
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
            if item.kind == "opaque":
                archive.addfile(tarfile.TarInfo(posixpath.join(prefix + path, ".wh..wh..opq")))
    return data.getvalue()


def saved(*layers: bytes, names: tuple[str, ...] = (), links: Mapping[str, str] | None = None) -> bytes:
    """What `docker save` writes for an image of these layers. `names` default to those of blobs, as Docker has them now.

    `links` are names of layers that lead to other layers.
    """
    places = names or tuple(f"blobs/sha256/{hashlib.sha256(layer).hexdigest()}" for layer in layers)
    listed = [*places, *(links or {})]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, layer in zip(places, layers, strict=True):
            _add(archive, name, layer)
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        _add(archive, "manifest.json", json.dumps([{"Config": "blobs/sha256/0", "Layers": listed}]).encode())
    return data.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


class Streamed(Commands):
    """Commands of which each writes the same bytes; `asked` are their words."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self.asked: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def stream(self, *words: str) -> Iterator[IO[bytes]]:
        self.asked.append(words)
        yield io.BytesIO(self.data)


def builder_of(data: bytes) -> Docker:
    """A builder that saves every image as `data`."""
    return Docker(Streamed(data), "label", "default")


# ---------------------------------------------------------------- snapshots out of entries


def file(text: str = "", *, mode: int = 0o644, owner: tuple[int, int] = (0, 0), program: Elf | str | None = None) -> Entry:
    """A file with this text; `program` is its ELF header or the line that names its interpreter."""
    data = text.encode()
    needs = Program(interpreter=program) if isinstance(program, str) else Program(elf=program)
    digest = hashlib.sha256(data).hexdigest()
    return Entry("file", mode, *owner, len(data), 0, program=needs, text=data, digest=digest)


def script(line: str) -> Entry:
    """A script that may be run, with this first line behind `#!`."""
    return file(f"#!{line}\n", mode=0o755, program=line)


def on_disk(path: Path, mode: int = 0o755) -> Entry:
    """A file of this machine."""
    return Entry("file", mode, 0, 0, path.stat().st_size, 0, source=path)


def folder(*, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry("folder", mode, *owner, 0, 0)


def link(target: str) -> Entry:
    return Entry("link", 0o777, 0, 0, 0, 0, link=target)


Files = dict[str, Entry]


def image_of(*layers: Files, base: int = 0, deleted: Mapping[int, tuple[str, ...]] | None = None) -> Snapshot:
    """The files of an image of these layers, the folders above them included; `deleted` is what each layer takes away."""
    made = []
    for number, entries in enumerate(layers):
        layer = _Layer(deleted=list((deleted or {}).get(number, ())))
        for path, entry in entries.items():
            above = path
            missing = []
            while (above := above.rpartition("/")[0]) and above not in entries and above not in layer.entries:
                missing.append(above)
            layer.entries |= {place: folder() for place in reversed(missing)}
            layer.entries[path] = replace(entry)
        made.append(layer)
    found = _merged(made)
    found.base = base
    return found


def config_of(**fields: Any) -> ImageConfig:
    """An image's configuration: of the fields as `inspect` names them."""
    return ImageConfig(fields, 0, ())


# ---------------------------------------------------------------- ELF files out of their parts

_START = 0x400000
_TAGS = {"needed": 1, "strings": 5, "length": 10, "rpath": 15, "runpath": 29}


def elf_file(*, needed: tuple[str, ...] = (), runpath: str = "", rpath: str = "", loader: str = "") -> bytes:
    """A small ELF file for x86-64 without sections: what the dynamic linker reads of it, and nothing that runs."""
    strings = b"\0"
    tags: list[tuple[int, int]] = []
    words = [("needed", name) for name in needed] + [("rpath", rpath), ("runpath", runpath)]
    for kind, text in words:
        if text:
            tags.append((_TAGS[kind], len(strings)))
            strings += text.encode() + b"\0"
    interpreter = loader.encode() + b"\0"
    at = 64 + 3 * 56
    table_at = at + len(interpreter) + len(strings)
    tags += [(_TAGS["strings"], _START + at + len(interpreter)), (_TAGS["length"], len(strings)), (0, 0)]
    table = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    end = table_at + len(table)
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = identity + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    segments = [(1, 0, end), (3 if loader else 0, at, len(interpreter)), (2, table_at, len(table))]
    written = b"".join(struct.pack("<IIQQQQQQ", k, 5, o, _START + o, _START + o, n, n, 8) for k, o, n in segments)
    return header + written + interpreter + strings + table
