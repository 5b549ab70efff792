"""The files of an image, from folders and from the archive of `save`: both ways come to the same."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from typing import TYPE_CHECKING

import pytest

from optimizer.verify import snapshot
from optimizer.verify.snapshot import Program, Snapshot, _from_archive, _from_folder, _from_tar, _merged, _overlay_folders, take
from tests.verify.images_made import (
    Files,
    Item,
    Streamed,
    builder_of,
    elf_file,
    file,
    folder,
    folder_item,
    image_of,
    lay_out,
    link,
    packed,
    saved,
    script,
)

if TYPE_CHECKING:
    from pathlib import Path

    from optimizer.verify.snapshot import Entry

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts and owners on disk are for root alone")


def on_disk(place: Path, *layers: tuple[Item, ...]) -> Snapshot:
    return _merged([_from_folder(lay_out(place / f"{number}", *items)) for number, items in enumerate(layers)])


def archived(*layers: tuple[Item, ...], prefix: str = "") -> Snapshot:
    return _merged(_from_archive(builder_of(saved(*(packed(*items, prefix=prefix) for items in layers))), "tag"))


def seen(found: Snapshot) -> dict[str, object]:
    """All of a snapshot that does not depend on where its bytes are."""
    entries = {
        path: (e.kind, e.mode, e.uid, e.gid, e.size, e.layer, e.link, found.digest(path), found.program(path))
        for path, e in found.entries.items()
    }
    return {"entries": entries, "layers": found.layers, "wasted": found.wasted, "replaced": sorted(found.replaced)}


LAYERS: dict[str, tuple[tuple[Item, ...], ...]] = {
    "plain files": (
        (
            folder_item("/etc"),
            Item("/etc/passwd", text="root:x:0:0::/root:/bin/sh\n"),
            folder_item("/usr"),
            folder_item("/usr/bin", mode=0o1777),
            Item("/usr/bin/run", text="#!/usr/bin/env -S node --x\n", mode=0o755, uid=1000, gid=50),
            Item("/usr/bin/secret", text="#!/bin/sh\n", mode=0o600),
            Item("/usr/set", text="x", mode=0o4755),
            Item("/bin", "link", "usr/bin"),
            Item("/pipe", "pipe"),
        ),
    ),
    "a file deleted": (
        (folder_item("/a"), Item("/a/b", text="12345"), Item("/a/c", text="1")),
        (folder_item("/a"), Item("/a/b", "whiteout")),
    ),
    "a folder deleted": (
        (folder_item("/a"), folder_item("/a/b"), Item("/a/b/c", text="123"), Item("/a/bc", text="1")),
        (folder_item("/a"), Item("/a/b", "whiteout")),
    ),
    "a file deleted at the top": ((Item("/a", text="12"), Item("/ab", text="1")), (Item("/a", "whiteout"),)),
    "deleted and written again": (
        (folder_item("/a"), Item("/a/b", text="12")),
        (folder_item("/a"), Item("/a/b", "whiteout")),
        (folder_item("/a"), Item("/a/b", text="3")),
    ),
    "an opaque folder": (
        (folder_item("/a"), folder_item("/a/b"), Item("/a/b/c", text="123"), Item("/a/d", text="1"), Item("/ad", text="1")),
        (folder_item("/a", "opaque"), Item("/a/d", text="22")),
    ),
    "a file in place of a folder": (
        (folder_item("/a"), Item("/a/b", text="123"), Item("/ab", text="1")),
        (Item("/a", text="12"),),
    ),
    "a link in place of a folder": (
        (folder_item("/a"), Item("/a/b", text="123"), folder_item("/c")),
        (Item("/a", "link", "c"),),
    ),
    "a folder in place of a file": ((Item("/a", text="123"),), (folder_item("/a"), Item("/a/b", text="1"))),
    "a file written over": ((Item("/a", text="123"),), (Item("/a", text="12", mode=0o755),)),
    "a folder of another owner": ((folder_item("/a"), Item("/a/b")), (folder_item("/a", uid=7),)),
    "names with a leading dot at the top": (
        (Item("/.dockerenv", text="1"), folder_item("/.config"), Item("/.config/..x", text="12"), Item("/..data", text="1")),
        (Item("/.dockerenv", "whiteout"),),
    ),
}


@root_only
@pytest.mark.parametrize("case", LAYERS)
def test_folders_and_the_archive_come_to_the_same(tmp_path: Path, case: str) -> None:
    assert seen(on_disk(tmp_path, *LAYERS[case])) == seen(archived(*LAYERS[case]))


@root_only
def test_hard_links_weigh_the_same_either_way(tmp_path: Path) -> None:
    layers = ((Item("/a", text="12345"), Item("/b", "hard link", "/a")), (Item("/a", "whiteout"), Item("/b", "whiteout")))
    assert on_disk(tmp_path, *layers).wasted == archived(*layers).wasted == 5


@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_names_in_an_archive_begin_in_any_way(prefix: str) -> None:
    layer = (folder_item("/a"), Item("/a/b", text="1"), Item("/.c", text="1"), Item("/a/d", "hard link", "/a/b"))
    found = archived(layer, (folder_item("/a", "opaque"), Item("/.c", "whiteout")), prefix=prefix)
    assert list(found.entries) == ["/a"]
    assert sorted(found.replaced) == [(1, "/.c", 0), (1, "/a/b", 0), (1, "/a/d", 0)]


def test_the_top_of_an_archive_is_no_file() -> None:
    assert list(_from_tar(io.BytesIO(packed(folder_item("./"), folder_item("/"), Item("/a"))), set(), frozenset()).entries) == [
        "/a"
    ]


def test_an_opaque_top_hides_everything() -> None:
    layer = _from_tar(io.BytesIO(packed(Item("/.wh..wh..opq"), Item("/new"))), set(), frozenset())
    assert layer.opaque == [""]
    below = _from_tar(io.BytesIO(packed(folder_item("/a"), Item("/a/b", text="12"), Item("/c"))), set(), frozenset())
    found = _merged([below, layer])
    assert list(found.entries) == ["/new"]
    assert found.wasted == 2


@pytest.mark.parametrize("packing", ["", "gz"])
@pytest.mark.parametrize("names", [(), ("1/layer.tar", "2/layer.tar")])
def test_archives_old_and_new_packed_or_not(names: tuple[str, ...], packing: str) -> None:
    layers = (packed(Item("/a", text="12"), packing=packing), packed(Item("/a", "whiteout"), Item("/b"), packing=packing))
    builder = builder_of(saved(*layers, names=names))
    found = _merged(_from_archive(builder, "mine:1"))
    assert list(found.entries) == ["/b"]
    assert found.layers == 2
    assert isinstance(builder.commands, Streamed)
    assert builder.commands.asked == [("docker", "save", "mine:1")]


def test_a_large_layer_is_read_as_it_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_KEPT", 2000)
    found = archived((Item("/a", text="x" * 5000), Item("/etc/passwd", text="x" * 3000)), (Item("/b", text="1"),))
    assert found.entries["/a"].size == 5000
    assert found.digest("/a") == hashlib.sha256(b"x" * 5000).hexdigest()
    assert found.text("/etc/passwd") is None
    assert list(found.entries) == ["/a", "/etc/passwd", "/b"]


def test_a_layer_may_be_a_link_to_another() -> None:
    layer = packed(Item("/a", text="12"))
    found = _from_archive(builder_of(saved(layer, names=("1/layer.tar",), links={"2/layer.tar": "../1/layer.tar"})), "tag")
    assert [list(made.entries) for made in found] == [["/a"], ["/a"]]


def test_an_archive_without_a_layer_that_it_lists_is_an_error() -> None:
    with pytest.raises(KeyError):
        _from_archive(builder_of(saved(links={"2/layer.tar": "../1/layer.tar"})), "tag")


def test_a_hard_link_is_the_file_again() -> None:
    found = archived((Item("/a", text="#!/bin/sh\n", mode=0o755, uid=5), Item("/b", "hard link", "/a")))
    first, second = found.entries["/a"], found.entries["/b"]
    assert (second.kind, second.mode, second.uid, second.size) == ("file", 0o755, 5, 0)
    assert found.digest("/b") == found.digest("/a") != ""
    assert found.program("/b") == Program(interpreter="/bin/sh")
    assert first.size == 10


def test_a_hard_link_to_nothing_is_something_else() -> None:
    found = archived((Item("/b", "hard link", "/a"),))
    assert found.entries["/b"].kind == "other"
    assert found.digest("/b") == ""


def test_the_text_of_a_package_in_a_store_is_kept() -> None:
    manifest = "/usr/src/app/node_modules/a/package.json"
    found = archived((Item("/pnpm/store/v3/files/00/1", text="{}"), Item(manifest, "hard link", "/pnpm/store/v3/files/00/1")))
    assert found.text(manifest) == "{}"


def test_a_library_in_a_store_is_looked_into() -> None:
    text = elf_file(needed=("liba.so",)).decode("utf-8", "surrogateescape")
    alone = archived((Item("/x.node", text=text),)).program("/x.node")
    if alone.elf is None or alone.elf.needed != ("liba.so",):
        pytest.fail("the library itself is not read")
    assert archived((Item("/pnpm/1", text=text), Item("/x.node", "hard link", "/pnpm/1"))).program("/x.node") == alone


# ---------------------------------------------------------------- what is merged


def test_wasted_bytes_are_those_that_nobody_sees() -> None:
    found = image_of(
        {"/a": file("12345"), "/b": file("123"), "/c/d": file("12"), "/kept": file("1234567")},
        {"/a": file("1"), "/c": file("1")},
        {"/a": file("12")},
        deleted={1: ("/b", "/never-there")},
    )
    assert found.wasted == 5 + 3 + 2 + 1
    assert sorted(found.replaced) == [(1, "/a", 0), (1, "/b", 0), (1, "/c", 0), (1, "/c/d", 0), (2, "/a", 1)]
    assert sorted(found.entries) == ["/a", "/c", "/kept"]


def test_a_folder_that_comes_again_replaces_nothing() -> None:
    found = image_of({"/a": folder(), "/a/b": file("1")}, {"/a": folder(), "/a/c": file("1")})
    assert (found.wasted, found.replaced) == (0, [])
    assert (found.entries["/a"].layer, found.entries["/a/b"].layer, found.entries["/a/c"].layer) == (0, 0, 1)


@pytest.mark.parametrize("changed", [folder(mode=0o700), folder(owner=(1, 0)), folder(owner=(0, 1))])
def test_a_folder_of_another_mode_or_owner_is_the_layers_own(changed: Entry) -> None:
    found = image_of({"/a": folder()}, {"/a": changed})
    assert found.entries["/a"].layer == 1


def test_a_whiteout_does_not_delete_what_its_own_layer_writes() -> None:
    found = image_of({"/a/b": file("1")}, {"/a/c": file("2")}, deleted={1: ("/a",)})
    assert sorted(found.entries) == ["/a", "/a/c"]
    assert found.entries["/a"].layer == 1


def test_the_base_is_what_its_layers_left() -> None:
    found = image_of({"/a": file(), "/b": file()}, {"/c": file()}, {"/b": file("new"), "/d": file()}, base=2)
    assert [path for path in ("/a", "/b", "/c", "/d", "/gone") if found.is_of_base(path)] == ["/a", "/c"]


def test_an_image_from_nothing_has_no_base() -> None:
    assert not image_of({"/a": file()}).is_of_base("/a")


# ---------------------------------------------------------------- what is asked of it

LINKED = image_of(
    {
        "/usr/bin/python3": file("x"),
        "/usr/lib/x86_64/libfoo.so.1.2": file("x"),
        "/usr/lib/x86_64/libfoo.so.1": link("libfoo.so.1.2"),
        "/usr/lib/x86_64/libup.so": link("../../bin/python3"),
        "/bin": link("usr/bin"),
        "/lib": link("/usr/lib"),
        "/deep": link("lib/x86_64"),
        "/usr/bin/python": link("python3"),
        "/etc/alternatives/python": link("/bin/python"),
        "/above": link("../../../usr/bin/python3"),
        "/double": link("//usr//bin/python3"),
        "/loop/a": link("b"),
        "/loop/b": link("a"),
        "/self": link("self/deeper"),
        "/nowhere": link("/not/there"),
        "/top": link("/"),
    }
)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("/bin/python3", "/usr/bin/python3"),
        ("/etc/alternatives/python", "/usr/bin/python3"),
        ("/deep/libfoo.so.1", "/usr/lib/x86_64/libfoo.so.1.2"),
        ("/lib/x86_64/libup.so", "/usr/bin/python3"),
        ("/above", "/usr/bin/python3"),
        ("/double", "/usr/bin/python3"),
        ("/top/usr/bin", "/usr/bin"),
        ("/top", "/"),
        ("/", "/"),
        ("/bin", "/usr/bin"),
        ("/bin/gone", None),
        ("/nowhere", None),
        ("/nowhere/x", None),
        ("/loop/a", None),
        ("/loop/b/x", None),
        ("/self", None),
        ("/usr/bin/python3/x", None),
        ("/usr/bin/pyth", None),
    ],
)
def test_links_are_followed_as_the_kernel_does(path: str, real: str | None) -> None:
    assert LINKED.resolve(path) == real


@pytest.mark.parametrize("path", ["/usr/bin/", "/usr//bin", "/usr/lib/../bin", "//usr/bin"])
def test_a_path_may_be_written_in_several_ways(path: str) -> None:
    assert LINKED.resolve(path) == "/usr/bin"


def test_find_follows_links() -> None:
    assert LINKED.find("/bin/python") is LINKED.entries["/usr/bin/python3"]
    assert LINKED.find("/loop/a") is None
    assert LINKED.find("/") is None


def test_the_chain_of_links_may_be_long_but_not_endless() -> None:
    chain: Files = {f"/{number}": link(f"/{number + 1}") for number in range(100)}
    found = image_of({**chain, "/100": file("end")})
    assert found.resolve("/90") == "/100"
    assert found.resolve("/0") is None


KEPT = [
    "/etc/passwd",
    "/etc/group",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d/a.conf",
    "/var/lib/dpkg/status",
    "/var/lib/dpkg/status.d/base",
    "/var/lib/dpkg/info/libc6:amd64.list",
    "/lib/apk/db/installed",
    "/app/package.json",
    "/app/node_modules/@a/b/package.json",
]
NOT_KEPT = ["/etc/passwd-", "/etc/shadow", "/home/etc/passwd", "/app/packages.json", "/var/lib/dpkg/info/a.md5sums", "/a.conf"]


def test_the_text_of_some_small_files_is_kept() -> None:
    found = archived(tuple(Item(path, text=path) for path in (*KEPT, *NOT_KEPT)))
    assert [path for path in KEPT if found.text(path) != path] == []
    assert [path for path in NOT_KEPT if found.text(path) is not None] == []


def test_text_is_read_through_links_and_of_files_alone(tmp_path: Path) -> None:
    layer = (
        folder_item("/usr"),
        folder_item("/usr/lib"),
        Item("/usr/lib/os-release", text="ID=x\n\u00e9"),
        Item("/release", "link", "usr/lib/os-release"),
        Item("/nowhere", "link", "gone"),
    )
    for found in (_merged([_from_folder(lay_out(tmp_path / "0", *layer))]), archived(layer)):
        assert found.text("/release") == "ID=x\n\u00e9"
        assert [found.text(path) for path in ("/nowhere", "/usr/lib", "/gone")] == [None, None, None]


def test_text_that_is_no_text_is_shown_all_the_same() -> None:
    found = image_of({"/etc/passwd": file()})
    found.entries["/etc/passwd"].text = b"a\xffb"
    assert found.text("/etc/passwd") == "a\ufffdb"


def test_texts_are_those_that_match_and_are_kept() -> None:
    found = archived((Item("/a/package.json", text="1"), Item("/b/package.json", text="2"), Item("/c/other.json", text="3")))
    assert list(snapshot.texts(found, re.compile(r"^/[bc]/.*\.json$"))) == [("/b/package.json", "2")]


def test_a_digest_is_of_files_alone(tmp_path: Path) -> None:
    layer = (folder_item("/a"), Item("/a/b", text="x"), Item("/l", "link", "a/b"), Item("/pipe", "pipe"))
    for found in (_merged([_from_folder(lay_out(tmp_path / "0", *layer))]), archived(layer)):
        assert found.digest("/a/b") == hashlib.sha256(b"x").hexdigest()
        assert [found.digest(path) for path in ("/a", "/l", "/pipe", "/gone")] == [""] * 4


@pytest.mark.parametrize(
    ("path", "text", "mode", "expected"),
    [
        ("/a", "#!/bin/sh\n", 0o755, Program(interpreter="/bin/sh")),
        ("/a", "#! /bin/sh -e \r\nexit\n", 0o711, Program(interpreter="/bin/sh -e")),
        ("/a", "#!/bin/sh", 0o645, Program(interpreter="/bin/sh")),
        ("/a", "#!" + "x" * 9000, 0o755, Program(interpreter="x" * 510)),
        ("/a", "#!/bin/sh\n", 0o644, Program()),
        ("/a", "# !/bin/sh\n", 0o755, Program()),
        ("/a", "", 0o755, Program()),
        ("/a", "#", 0o755, Program()),
        ("/a", "\x7fELF", 0o755, Program()),
        ("/a.so", "#!/lib/x\n", 0o644, Program(interpreter="/lib/x")),
        ("/a.so.1.2", "#!/lib/x\n", 0o644, Program(interpreter="/lib/x")),
        ("/a.node", "#!/lib/x\n", 0o644, Program(interpreter="/lib/x")),
        ("/a.sock", "#!/lib/x\n", 0o644, Program()),
        ("/a.so/b", "#!/lib/x\n", 0o644, Program()),
    ],
)
def test_what_may_run_or_be_loaded_is_looked_into(tmp_path: Path, path: str, text: str, mode: int, expected: Program) -> None:
    items = (Item(path, text=text, mode=mode),)
    lay_out(tmp_path / "0", *items)
    assert _merged([_from_folder(tmp_path / "0")]).program(path) == expected
    assert archived(items).program(path) == expected


def test_a_script_made_by_hand_is_one() -> None:
    assert image_of({"/a": script("/bin/sh")}).program("/a").interpreter == "/bin/sh"


# ---------------------------------------------------------------- which way is taken


def described(*folders: Path, driver: str = "overlay2") -> dict[str, object]:
    """What `inspect` says of an image whose layers, highest first, are these folders."""
    upper, *lower = folders
    data = {"UpperDir": str(upper)} | ({"LowerDir": ":".join(str(path) for path in lower)} if lower else {})
    return {"GraphDriver": {"Name": driver, "Data": data}}


@root_only
def test_the_folders_of_the_driver_are_read_lowest_first(tmp_path: Path) -> None:
    low = lay_out(tmp_path / "low", Item("/a", text="low"), Item("/b", text="1"))
    middle = lay_out(tmp_path / "middle", Item("/a", text="middle"))
    high = lay_out(tmp_path / "high", Item("/a", text="high"))
    assert _overlay_folders(described(high, middle, low)) == [low, middle, high]
    assert _overlay_folders(described(high)) == [high]
    found = take(builder_of(b""), "tag", described(high, middle, low))
    assert found.digest("/a") == hashlib.sha256(b"high").hexdigest()
    assert (found.layers, found.base, found.wasted) == (3, 0, 9)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"GraphDriver": None},
        {"GraphDriver": {"Name": "overlay2", "Data": None}},
        {"GraphDriver": {"Name": "overlay2", "Data": {"LowerDir": "/tmp"}}},
        {"GraphDriver": {"Name": "btrfs", "Data": {"UpperDir": "/tmp"}}},
        {"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/not/there"}}},
        {"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/tmp", "LowerDir": "/tmp:/not/there"}}},
    ],
)
def test_without_folders_that_can_be_read_the_archive_is(said: dict[str, object]) -> None:
    assert _overlay_folders(said) is None
    found = take(builder_of(saved(packed(Item("/a", text="1")))), "tag", said)
    assert list(found.entries) == ["/a"]


def test_only_root_reads_the_drivers_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _overlay_folders(described(tmp_path)) is None


def test_an_opaque_folder_of_a_driver_without_privileges(tmp_path: Path) -> None:
    place = lay_out(tmp_path / "0", folder_item("/a"), folder_item("/b"))
    try:
        os.setxattr(place / "a", "user.overlay.opaque", b"y")
        os.setxattr(place / "b", "user.overlay.opaque", b"n")
    except OSError as error:
        pytest.skip(f"the file system keeps no such attributes ({errno.errorcode[error.errno or 0]})")
    assert _from_folder(place).opaque == ["/a"]
