"""Whether every program and library of an image finds what it is linked against, and every script its interpreter.

Source: ld.so(8): a library is looked for in the file's own search path, in LD_LIBRARY_PATH, in the folders of ld.so.conf and in
the default folders; musl looks in /lib, /usr/local/lib and /usr/lib.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import from_words
from optimizer.verify.snapshot import LIBRARY, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from optimizer.verify.elf import Elf
    from optimizer.verify.snapshot import Snapshot

_DEFAULT = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_TRIPLETS = {
    "EM_X86_64": "x86_64-linux-gnu",
    "EM_AARCH64": "aarch64-linux-gnu",
    "EM_386": "i386-linux-gnu",
    "EM_ARM": "arm-linux-gnueabihf",
}
_LINKER_SETTINGS = re.compile(r"^/etc/ld\.so\.conf(\.d/.*\.conf)?$")


class Linker:
    """Answers, for one image, where a library is found. `environment` is the image's own."""

    def __init__(self, snapshot: Snapshot, environment: Mapping[str, str]) -> None:
        self.snapshot = snapshot
        self.path = tuple(part for part in environment.get("PATH", "").split(":") if part)
        self._preset = tuple(part for part in environment.get("LD_LIBRARY_PATH", "").split(":") if part)
        self._names: dict[str, list[str]] = {}
        for path, entry in snapshot.entries.items():
            if ".so" in path and entry.kind in ("file", "link"):
                self._names.setdefault(posixpath.basename(path), []).append(path)
        self._configured = tuple(
            line.strip()
            for _, text in texts(snapshot, _LINKER_SETTINGS)
            for line in text.splitlines()
            if line.strip().startswith("/")
        )

    def missing(self, path: str) -> Iterator[str]:
        """What the program or library at `path` does not find, in words."""
        elf = self.snapshot.program(path).elf
        if elf is None:
            return
        if elf.loader and self.snapshot.find(elf.loader) is None:
            yield f"needs the dynamic linker {elf.loader}"
        found: dict[str, str] = {}
        for name in elf.needed:
            where = self._library(path, elf, name)
            if where is None:
                yield f"needs {name}"
            else:
                found[name] = where
        for name, version in elf.versions:
            provides = self._provides(found[name]) if name in found else frozenset()
            if provides and version not in provides:
                yield f"needs {version} of {name}"

    def interpreter(self, path: str) -> str | None:
        """The interpreter that the script at `path` asks for and that the image does not have; None where all is well."""
        line = self.snapshot.program(path).interpreter
        if not line:
            return None
        program, *words = line.split() or [""]
        if program.startswith("/") and self.snapshot.find(program) is None:
            return program
        command = from_words((posixpath.basename(program), *words)).commands[0]
        if command.head == 0:
            return None  # it starts nothing else, as `env` does
        name = command.words[command.head].text or ""
        places = [name] if name.startswith("/") else [f"{folder}/{name}" for folder in self.path]
        return None if any(self.snapshot.find(place) for place in places) else name

    def _library(self, path: str, elf: Elf, name: str) -> str | None:
        """The path of the library `name` for the file at `path`.

        Anywhere in the image, where it is not in a known folder: programs load libraries by their path, before what needs them.
        """
        if "/" in name:
            return self.snapshot.resolve(name)
        origin = posixpath.dirname(path)
        own = (folder.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin) for folder in elf.folders)
        triplet = _TRIPLETS.get(elf.machine, "")
        places = (*own, *self._preset, *self._configured, *(f"{folder}/{triplet}" for folder in _DEFAULT[:2]), *_DEFAULT)
        for folder in places:
            if (real := self.snapshot.resolve(posixpath.normpath(f"{folder}/{name}"))) is not None:
                return real
        return next((real for other in self._names.get(name, ()) if (real := self.snapshot.resolve(other)) is not None), None)

    def _provides(self, path: str) -> frozenset[str]:
        elf = self.snapshot.program(path).elf
        return elf.provides if elf is not None else frozenset()


def subject(what: str) -> str:
    """The name of the file that one of the sentences of `Linker.missing` is about."""
    return posixpath.basename(what.rpartition(" ")[2])


def programs(snapshot: Snapshot) -> Iterator[str]:
    """The programs and libraries of an image; those of its base alone where its own layers took something from the base."""
    is_touched = _is_base_touched(snapshot)
    for path, entry in snapshot.entries.items():
        if entry.kind == "file" and (is_touched or entry.layer >= snapshot.base) and snapshot.program(path).elf is not None:
            yield path


def _is_base_touched(snapshot: Snapshot) -> bool:
    """Whether the layers above the base deleted or replaced one of its libraries."""
    return any(layer >= snapshot.base > was and LIBRARY.search(path) for layer, path, was in snapshot.replaced)
