"""What an ELF file needs, and that broken ones say nothing rather than end the run."""

from __future__ import annotations

import io
import struct
import sys
import sysconfig
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from optimizer.verify.elf import Elf, read_elf
from tests.verify.images_made import elf_file

LOADER = "/lib64/ld-linux-x86-64.so.2"


def read(data: bytes) -> Elf | None:
    return read_elf(io.BytesIO(data))


@pytest.fixture
def program() -> bytes:
    path = Path(sys.executable).resolve()
    data = path.read_bytes()
    if not data.startswith(b"\x7fELF"):
        pytest.skip(f"{path} is no ELF file")
    return data


@pytest.fixture
def extension() -> bytes:
    folder = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    found = next((path for path in sorted(folder.glob("*.so")) if path.read_bytes()[:4] == b"\x7fELF"), None)
    if found is None:
        pytest.skip(f"no extension module in {folder}")
    return found.read_bytes()


def test_a_crafted_program_is_read_in_full() -> None:
    data = elf_file(needed=("libfoo.so.1", "libc.so.6"), runpath="$ORIGIN/../lib::/opt/lib", loader=LOADER)
    assert read(data) == Elf("EM_X86_64", ("libfoo.so.1", "libc.so.6"), folders=("$ORIGIN/../lib", "/opt/lib"), loader=LOADER)


def test_the_old_search_path_is_read_too() -> None:
    assert read(elf_file(rpath="/old")) == Elf("EM_X86_64", folders=("/old",))


def test_a_static_program_needs_nothing() -> None:
    assert read(elf_file()) == Elf("EM_X86_64")


def test_the_file_is_read_from_its_start() -> None:
    file = io.BytesIO(elf_file(needed=("liba.so",)))
    file.seek(10)
    found = read_elf(file)
    assert found is not None
    assert found.needed == ("liba.so",)


def test_a_program_of_this_machine(program: bytes) -> None:
    found = read(program)
    assert found is not None
    assert found.loader.startswith("/lib")
    assert "ld-" in found.loader
    assert any(name.startswith("libc.") for name in found.needed)
    assert {name for name, _ in found.versions} <= set(found.needed)


def test_an_extension_module_asks_for_symbol_versions_and_has_no_loader(extension: bytes) -> None:
    found = read(extension)
    assert found is not None
    assert found.loader == ""
    if "libc.so.6" in found.needed:
        assert any(name == "libc.so.6" and version.startswith("GLIBC_2.") for name, version in found.versions)


def test_a_library_says_which_versions_it_provides() -> None:
    path = next((p for p in Path("/lib").glob("*-linux-gnu/libc.so.6")), None)
    if path is None:
        pytest.skip("no glibc where Debian has it")
    found = read(path.read_bytes())
    assert found is not None
    assert "GLIBC_2.17" in found.provides
    assert "GLIBC_2.99" not in found.provides


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7f",
        b"\x7fELF",
        b"\x7fELF" + bytes(12),
        b"\x7fELF\x02\x01\x01" + bytes(9),
        b"\x7fELF\x03\x03\x03" + b"\xff" * 80,
        b"#!/bin/sh\n",
        b"MZ" + bytes(100),
        b"\x7fELF\x02\x01\x01" + b"A" * 57,
    ],
)
def test_what_is_no_elf_file_says_nothing(data: bytes) -> None:
    assert read(data) is None


def test_a_truncated_file_is_no_error() -> None:
    data = elf_file(needed=("libfoo.so.1",), runpath="/opt/lib", loader=LOADER)
    whole = read(data)
    for length in range(len(data) - 24):
        assert read(data[:length]) != whole, length


def test_a_truncated_program_of_this_machine_is_no_error(program: bytes) -> None:
    assert [read(program[:length]) for length in range(0, 64, 3)] == [None] * 22
    for length in (*range(64, 1200, 13), len(program) // 2, len(program) - 1):
        read(program[:length])


def test_a_name_that_is_no_text_says_nothing() -> None:
    data = elf_file(needed=("libfoo.so.1",))
    assert read(data.replace(b"libfoo", b"\xff\xfe\xfd\xfc\xfb\xfa")) is None


# Where the header says where the tables of segments and of sections are.
@pytest.mark.parametrize("at", [32, 40])
def test_a_table_beyond_all_files_says_nothing(at: int) -> None:
    data = bytearray(elf_file(needed=("libfoo.so.1",)))
    data[58:64] = struct.pack("<HHH", 64, 1, 0)
    data[at : at + 8] = b"\xff" * 8
    assert read(bytes(data)) is None


def test_a_count_of_versions_beyond_the_file_is_not_believed(program: bytes) -> None:
    elf = ELFFile(io.BytesIO(program))
    number = elf.get_section_index(".gnu.version_r")
    if number is None:
        pytest.skip("this Python asks for no symbol versions")
    at = elf.header.e_shoff + number * elf.header.e_shentsize + 44
    count = len(program) // 16  # each takes at least 16 bytes
    found = read(program[:at] + struct.pack("<I", count + 1) + program[at + 4 :])
    assert found is None or len(found.versions) <= count
