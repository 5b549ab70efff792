"""Programs and libraries find what they are linked against, scripts find their interpreter, and what does not is named."""

from __future__ import annotations

import posixpath
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from optimizer.verify.elf import Elf
from optimizer.verify.linkage import Linker, programs
from tests.verify.images_made import Files, elf_file, file, folder, image_of, link, on_disk, script

if TYPE_CHECKING:
    from optimizer.verify.snapshot import Entry

LOADER = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


def elf(
    *needed: str,
    provides: tuple[str, ...] = (),
    versions: tuple[tuple[str, str], ...] = (),
    folders: tuple[str, ...] = (),
    machine: str = "EM_X86_64",
    loader: str = "",
) -> Elf:
    return Elf(machine, needed, versions, frozenset(provides), folders, loader)


def library(*needed: str, provides: tuple[str, ...] = ()) -> Elf:
    return elf(*needed, provides=provides)


GLIBC: Files = {
    LOADER: file("loader", mode=0o755, program=library()),
    "/lib/x86_64-linux-gnu/libc.so.6": file("libc", program=library(provides=("libc.so.6", "GLIBC_2.17", "GLIBC_2.34"))),
}


def missing(files: Files, path: str, **environment: str) -> list[str]:
    return list(Linker(image_of(files), environment).missing(path))


def with_program(program: Elf) -> Files:
    """An image with glibc and a program."""
    return {**GLIBC, "/app/bin/run": file("run", mode=0o755, program=program)}


# ---------------------------------------------------------------- libraries


def test_a_program_that_finds_all_misses_nothing() -> None:
    program = elf("libc.so.6", versions=(("libc.so.6", "GLIBC_2.34"),), loader=LOADER)
    assert missing(with_program(program), "/app/bin/run") == []


def test_a_missing_library_is_named() -> None:
    assert missing(with_program(elf("libc.so.6", "libpq.so.5", "libz.so.1")), "/app/bin/run") == [
        "needs libpq.so.5",
        "needs libz.so.1",
    ]


def test_a_missing_symbol_version_is_named() -> None:
    wanted = (("libc.so.6", "GLIBC_2.17"), ("libc.so.6", "GLIBC_2.99"))
    assert missing(with_program(elf("libc.so.6", versions=wanted)), "/app/bin/run") == ["needs GLIBC_2.99 of libc.so.6"]


def test_versions_of_a_missing_library_are_not_named_as_well() -> None:
    found = missing(with_program(elf("libpq.so.5", versions=(("libpq.so.5", "PQ_1"),))), "/app/bin/run")
    assert found == ["needs libpq.so.5"]


def test_a_library_that_numbers_no_versions_has_them_all() -> None:
    files = with_program(elf("liba.so", versions=(("liba.so", "A_1"),))) | {"/usr/lib/liba.so": file(program=library())}
    assert missing(files, "/app/bin/run") == []


def test_a_library_that_is_no_elf_file_has_no_versions() -> None:
    files = with_program(elf("liba.so", versions=(("liba.so", "A_1"),))) | {"/usr/lib/liba.so": file("INPUT(liba.so.1)")}
    assert missing(files, "/app/bin/run") == []


def test_what_is_no_elf_file_misses_nothing() -> None:
    files: Files = {"/run": script("/bin/sh"), "/data": file("x"), "/folder": folder(), "/l": link("run")}
    assert [missing(files, path) for path in files] == [[], [], [], []]


def test_a_dynamic_linker_of_another_libc_is_missing() -> None:
    files: Files = {
        MUSL: file("musl", mode=0o755, program=library()),
        "/lib/libc.musl-x86_64.so.1": link("ld-musl-x86_64.so.1"),
        "/glibc": file("run", mode=0o755, program=elf("libc.so.6", loader=LOADER)),
        "/musl": file("run", mode=0o755, program=elf("libc.musl-x86_64.so.1", loader=MUSL)),
    }
    assert missing(files, "/glibc") == [f"needs the dynamic linker {LOADER}", "needs libc.so.6"]
    assert missing(files, "/musl") == []


def test_a_dynamic_linker_behind_links_is_found() -> None:
    files: Files = {
        "/lib64": link("usr/lib64"),
        "/usr/lib64/ld-linux-x86-64.so.2": link("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": file("loader", mode=0o755),
        "/run": file("run", mode=0o755, program=elf(loader=LOADER)),
    }
    assert missing(files, "/run") == []
    del files["/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]
    assert missing(files, "/run") == [f"needs the dynamic linker {LOADER}"]


# Each place has its own liba.so, that provides the version of its name: which is found shows.
def _places(*names: str) -> Files:
    return {f"/{name}/liba.so": file(name, program=library(provides=(name,))) for name in names}


def _found(files: Files, folders: tuple[str, ...] = (), machine: str = "EM_X86_64", **environment: str) -> str:
    """The folder of the liba.so that a program in /app/bin finds."""
    program = elf("liba.so", folders=folders, machine=machine)
    linker = Linker(image_of({**files, "/app/bin/run": file("run", mode=0o755, program=program)}), environment)
    return posixpath.dirname(linker._library("/app/bin/run", program, "liba.so") or "/nowhere/x")


def test_the_own_folder_of_a_program_is_taken_literally_and_first() -> None:
    files = _places("app/lib", "opt/lib", "usr/lib")
    assert _found(files, ("$ORIGIN/../lib",), LD_LIBRARY_PATH="/opt/lib") == "/app/lib"
    assert _found(files, ("${ORIGIN}/../lib",)) == "/app/lib"
    assert _found(files, ("/opt/lib",)) == "/opt/lib"
    assert _found(files, ("$ORIGIN/lib", "/opt/lib")) == "/opt/lib"
    assert _found(files, ("$ORIGIN/../../lib",)) == "/usr/lib"


def test_the_environment_comes_before_the_settings_and_these_before_the_default() -> None:
    files = _places("opt/lib", "etc/lib", "usr/lib")
    files["/etc/ld.so.conf.d/a.conf"] = file("# /comment\n\n  /etc/lib  \ninclude /etc/more/*.conf\n")
    assert _found(files, LD_LIBRARY_PATH=":/opt/none:/opt/lib:") == "/opt/lib"
    assert _found(files) == "/etc/lib"
    files["/etc/ld.so.conf.d/a.conf"] = file("# /etc/lib\n")
    assert _found(files) == "/usr/lib"


def test_the_linkers_own_settings_file_counts_and_others_do_not() -> None:
    files = _places("opt/lib", "usr/lib")
    assert _found({**files, "/etc/ld.so.conf": file("/opt/lib\n")}) == "/opt/lib"
    assert _found({**files, "/etc/ld.so.conf.d/a.conf.bak": file("/opt/lib\n")}) == "/usr/lib"
    assert _found({**files, "/app/etc/ld.so.conf": file("/opt/lib\n")}) == "/usr/lib"


def test_the_default_folders_are_those_of_the_processor() -> None:
    files = _places("usr/lib/aarch64-linux-gnu", "usr/lib", "usr/lib/x86_64-linux-gnu")
    assert _found(files) == "/usr/lib/x86_64-linux-gnu"
    assert _found(files, machine="EM_AARCH64") == "/usr/lib/aarch64-linux-gnu"
    assert _found(files, machine="EM_RISCV") == "/usr/lib"


@pytest.mark.parametrize("place", ["lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib"])
def test_each_default_folder_is_known(place: str) -> None:
    assert _found(_places("zzz", place)) == f"/{place}"


def test_a_library_outside_of_the_known_folders_is_taken_to_be_found() -> None:
    assert _found(_places("app/site-packages/a.libs")) == "/app/site-packages/a.libs"


def test_a_link_to_nowhere_is_no_library() -> None:
    assert _found({"/usr/lib/liba.so": link("liba.so.1"), "/opt/liba.so": link("gone")}) == "/nowhere"
    assert _found({"/usr/lib/liba.so": link("liba.so.1"), **_places("opt")}) == "/opt"


def test_a_folder_is_not_taken_for_a_library_elsewhere() -> None:
    assert _found({"/opt/liba.so": folder()}) == "/nowhere"


def test_a_library_named_by_its_path_is_looked_for_there_alone() -> None:
    files = with_program(elf("/opt/liba.so")) | {"/usr/lib/liba.so": file(program=library())}
    assert missing(files, "/app/bin/run") == ["needs /opt/liba.so"]
    files["/opt"] = link("usr/lib")
    assert missing(files, "/app/bin/run") == []


def test_a_folder_may_have_a_backslash_in_its_name() -> None:
    path = "/app/C:\\Users/run"
    files: Files = {path: file("run", mode=0o755, program=elf("liba.so", folders=("$ORIGIN",)))}
    files["/app/C:\\Users/liba.so"] = file(program=library())
    assert missing(files, path) == []


# ---------------------------------------------------------------- with files of this machine


def _program_of_this_machine() -> Path:
    path = Path(sys.executable).resolve()
    if path.read_bytes()[:4] != b"\x7fELF":
        pytest.skip(f"{path} is no ELF file")
    return path


def test_a_program_of_this_machine_in_an_empty_image_finds_nothing() -> None:
    path = _program_of_this_machine()
    image = image_of({"/usr/bin/python3": on_disk(path)})
    header = image.program("/usr/bin/python3").elf
    assert header is not None
    found = list(Linker(image, {}).missing("/usr/bin/python3"))
    assert found == [f"needs the dynamic linker {header.loader}", *(f"needs {name}" for name in header.needed)]


def test_a_program_of_this_machine_with_this_machines_libc() -> None:
    path = _program_of_this_machine()
    libc = next(Path("/lib").glob("*-linux-gnu/libc.so.6"), None)
    if libc is None:
        pytest.skip("no glibc where Debian has it")
    image = image_of({"/usr/bin/python3": on_disk(path), "/lib/libc.so.6": on_disk(libc, 0o644)})
    found = list(Linker(image, {}).missing("/usr/bin/python3"))
    assert not any("libc.so.6" in what for what in found)


def test_an_extension_module_with_a_libc_that_is_too_old() -> None:
    folder = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    for path in sorted(folder.glob("*.so")):
        image = image_of(
            {
                f"/app/{path.name}": on_disk(path, 0o644),
                "/lib/libc.so.6": file("old", program=library(provides=("GLIBC_2.0",))),
            }
        )
        header = image.program(f"/app/{path.name}").elf
        if header is not None and "libc.so.6" in header.needed:
            found = list(Linker(image, {}).missing(f"/app/{path.name}"))
            wanted = [f"needs {version} of libc.so.6" for name, version in header.versions if name == "libc.so.6"]
            assert [what for what in found if what.endswith("libc.so.6")] == wanted != []
            return
    pytest.skip(f"no extension module in {folder} that needs glibc")


def test_a_crafted_program_on_disk_is_followed_to_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(elf_file(needed=("liba.so", "libb.so"), runpath="$ORIGIN/../lib", loader=LOADER))
    (tmp_path / "liba.so").write_bytes(elf_file())
    files: Files = {
        LOADER: file("loader"),
        "/app/bin/run": on_disk(tmp_path / "run"),
        "/app/lib/liba.so": on_disk(tmp_path / "liba.so", 0o644),
    }
    assert missing(files, "/app/bin/run") == ["needs libb.so"]


def test_a_broken_elf_file_misses_nothing_and_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(elf_file(needed=("liba.so",))[:70])
    files: Files = {"/run": on_disk(tmp_path / "run")}
    assert missing(files, "/run") == []
    assert list(programs(image_of(files))) == []


# ---------------------------------------------------------------- interpreters

PATH = "/usr/local/bin:/usr/bin"
INTERPRETERS: Files = {
    "/usr/bin/env": file("env", mode=0o755),
    "/usr/local/bin/node": file("node", mode=0o755),
    "/usr/bin/bash": file("bash", mode=0o755),
    "/bin": link("usr/bin"),
    "/usr/bin/python": link("/opt/python/bin/python3"),
    "/opt/tools/deno": file("deno", mode=0o755),
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/usr/bin/env -S node", None),
        ("/usr/bin/env node", None),
        ("/bin/env node", None),
        ("/usr/bin/env -S NODE_ENV=production DEBUG=* node --x", None),
        ("/bin/bash", None),
        ("/bin/bash -euo pipefail", None),
        ("/usr/bin/bash", None),
        ("bash", None),
        ("./tools/run", None),
        ("../node", None),
        ("", None),
        ("   ", None),
        ("/usr/bin/env", None),
        ("/usr/bin/env -S ruby -w", "ruby"),
        ("/usr/bin/env ruby", "ruby"),
        ("/usr/bin/env   ruby", "ruby"),
        ("/usr/bin/env A=1 ruby", "ruby"),
        ("/usr/bin/env deno", "deno"),
        ("/usr/bin/env python", "python"),
        ("/bin/sh", "/bin/sh"),
        ("/bin/sh -e", "/bin/sh"),
        ("/usr/bin/python", "/usr/bin/python"),
        ("/bin/node", "/bin/node"),
        ("/usr/bin/bash2", "/usr/bin/bash2"),
    ],
)
def test_the_interpreter_of_a_script(line: str, expected: str | None) -> None:
    files: Files = {**INTERPRETERS, "/app/run": script(line)}
    assert Linker(image_of(files), {"PATH": PATH}).interpreter("/app/run") == expected


def test_without_a_path_env_finds_nothing() -> None:
    files: Files = {**INTERPRETERS, "/app/run": script("/usr/bin/env node")}
    assert Linker(image_of(files), {}).interpreter("/app/run") == "node"
    assert Linker(image_of(files), {"PATH": ":/opt::/usr/local/bin:"}).interpreter("/app/run") is None


def test_programs_have_no_interpreter() -> None:
    assert Linker(image_of(with_program(elf())), {"PATH": PATH}).interpreter("/app/bin/run") is None


def test_a_script_needs_env_itself() -> None:
    files: Files = {"/usr/local/bin/node": file("node", mode=0o755), "/app/run": script("/usr/bin/env node")}
    assert Linker(image_of(files), {"PATH": PATH}).interpreter("/app/run") is not None


def test_a_folder_of_the_path_may_end_in_a_slash() -> None:
    files: Files = {**INTERPRETERS, "/app/run": script("/usr/bin/env node")}
    assert Linker(image_of(files), {"PATH": "/usr/local/bin/:/usr/bin/"}).interpreter("/app/run") is None


@pytest.mark.parametrize("line", ["/usr/bin/env -u DEBUG node", "/usr/bin/env -vS node", "/usr/bin/env -S -i node"])
def test_env_may_have_other_options(line: str) -> None:
    files: Files = {**INTERPRETERS, "/app/run": script(line)}
    assert Linker(image_of(files), {"PATH": PATH}).interpreter("/app/run") is None


def test_env_may_be_given_a_path() -> None:
    files: Files = {**INTERPRETERS, "/app/run": script("/usr/bin/env /usr/bin/bash")}
    assert Linker(image_of(files), {"PATH": PATH}).interpreter("/app/run") is None


# ---------------------------------------------------------------- which programs are looked at

BASE: Files = {**GLIBC, "/usr/bin/tool": file("tool", mode=0o755, program=elf("libc.so.6"))}
OWN: Files = {
    "/app/run": file("run", mode=0o755, program=elf("libc.so.6")),
    "/app/script": script("/bin/sh"),
    "/app/data": file("x"),
    "/app/link": link("run"),
}


def test_the_programs_of_the_base_are_its_makers_business() -> None:
    assert list(programs(image_of(BASE, OWN, base=1))) == ["/app/run"]
    assert set(programs(image_of(BASE, OWN))) == {*BASE, "/app/run"}


@pytest.mark.parametrize("new", [file("other", program=library()), link("/opt/libc.so.6"), folder()])
def test_they_are_looked_at_once_a_library_of_the_base_is_replaced(new: Entry) -> None:
    own = {**OWN, "/lib/x86_64-linux-gnu/libc.so.6": new}
    assert "/usr/bin/tool" in set(programs(image_of(BASE, own, base=1)))


def test_they_are_looked_at_once_a_library_of_the_base_is_deleted() -> None:
    for gone in ("/lib/x86_64-linux-gnu/libc.so.6", "/lib"):
        assert "/usr/bin/tool" in set(programs(image_of(BASE, OWN, base=1, deleted={1: (gone,)})))


def test_they_are_not_looked_at_for_other_files_or_what_the_base_did_itself() -> None:
    assert set(programs(image_of(BASE, OWN, base=1, deleted={1: ("/usr/bin/gone", "/etc")}))) == {"/app/run"}
    changed = image_of({**BASE, "/etc/a": file("1")}, {"/etc/a": file("2")}, OWN, base=1)
    assert set(programs(changed)) == {"/app/run"}
    by_base = image_of(BASE, {}, OWN, base=2, deleted={1: ("/lib/x86_64-linux-gnu/libc.so.6",)})
    assert set(programs(by_base)) == {"/app/run"}


@pytest.mark.parametrize("path", ["/app/liba.so", "/etc/systemd/system/docker.socket"])
def test_an_own_library_that_is_replaced_is_not_the_bases(path: str) -> None:
    first: Files = {path: file("1", program=library())} if path.startswith("/app") else {}
    base = BASE if first else {**BASE, path: file("1")}
    replaced = image_of(base, {**OWN, **first}, {path: file("2")}, base=1)
    assert "/usr/bin/tool" not in set(programs(replaced))
