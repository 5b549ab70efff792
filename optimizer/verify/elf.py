"""What a program or library needs: the libraries and symbol versions that the dynamic linker will look for.

Source: the System V ABI, "Dynamic Linking"; the LSB on symbol versions; ld.so(8) on where it looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from elftools.elf.segments import InterpSegment

if TYPE_CHECKING:
    from typing import IO

    from elftools.elf.sections import Section


@dataclass(frozen=True, slots=True)
class Elf:
    """The dynamic part of an ELF file.

    `needed`: names of libraries; `versions`: (library, symbol version) pairs that it asks for; `provides`: the versions that
    it defines; `folders`: its own search path, `$ORIGIN` not yet replaced; `loader`: the path of the dynamic linker that a
    program asks for; `machine`: the processor's name.
    """

    machine: str
    needed: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    provides: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()
    loader: str = ""


def read_elf(file: IO[bytes]) -> Elf | None:
    """What the ELF file says; None where it is broken, as test data is."""
    try:
        file.seek(0)
        return _read(ELFFile(file))
    except (ELFError, ValueError, KeyError, IndexError, AttributeError, AssertionError, UnicodeError, OverflowError):
        return None  # the reader gives up on truncated and foreign files in all of these ways


def _read(elf: ELFFile) -> Elf:
    needed: list[str] = []
    folders: list[str] = []
    loader = ""
    for segment in elf.iter_segments():
        if isinstance(segment, InterpSegment):
            loader = segment.get_interp_name()
        elif isinstance(segment, DynamicSegment):
            for tag in segment.iter_tags():
                kind = tag.entry.d_tag
                if kind == "DT_NEEDED":
                    needed.append(tag.needed)  # type: ignore[attr-defined] # the tag's kind gives it this name
                elif kind in ("DT_RPATH", "DT_RUNPATH"):
                    text = getattr(tag, kind.removeprefix("DT_").lower())
                    folders += [part for part in text.split(":") if part]
    return Elf(elf.header.e_machine, tuple(needed), _versions(elf), _provides(elf), tuple(folders), loader)


def _versions(elf: ELFFile) -> tuple[tuple[str, str], ...]:
    section = elf.get_section_by_name(".gnu.version_r")
    if not isinstance(section, GNUVerNeedSection):
        return ()
    libraries = islice(section.iter_versions(), _count(section))
    return tuple((library.name or "", version.name) for library, found in libraries for version in found)


def _provides(elf: ELFFile) -> frozenset[str]:
    section = elf.get_section_by_name(".gnu.version_d")
    if not isinstance(section, GNUVerDefSection):
        return frozenset()
    return frozenset(next(iter(names)).name for _, names in islice(section.iter_versions(), _count(section)))


def _count(section: Section) -> int:
    """How many records a section has room for, each at least 16 bytes: a damaged file may claim billions."""
    return int(section.header.sh_size) // 16
