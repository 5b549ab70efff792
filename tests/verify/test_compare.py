"""Two images side by side: what a rewrite announced is named after it, all else is a failure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from optimizer.dockerfile.document import Document
from optimizer.dockerfile.edit import Edit, Span
from optimizer.engine import optimize
from optimizer.facts import Facts
from optimizer.facts.context import BuildContext
from optimizer.rewrite import Aspect, Change, CompanionFile, FileChange, Rewrite, Safety
from optimizer.settings import Settings
from optimizer.transform import Meta, Phase
from optimizer.verify import file_changes
from optimizer.verify.compare import Comparison
from optimizer.verify.difference import Area, Difference, Image, failures
from optimizer.verify.elf import Elf
from tests.verify.images_made import Files, config_of, file, folder, image_of, link, script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from optimizer.rewrite import Refusal
    from optimizer.transform import Transform
    from optimizer.verify.snapshot import Snapshot


def meta(name: str, changes: Iterable[Change], files: Iterable[FileChange], may: Iterable[Aspect] = ()) -> Meta:
    aspects = frozenset({*may, *(change.aspect for change in changes)})
    return Meta(name, Phase.METADATA, aspects, (), name, "because", name, frozenset(files))


class Replacing:
    """Replaces one text by another, once, and says which files it may change."""

    def __init__(self, old: str, new: str, *changes: Change, name: str = "replacing", files: Iterable[FileChange] = ()) -> None:
        self.meta = meta(name, changes, files)
        self.old, self.new, self.changes = old, new, changes

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        at = document.source.text.find(self.old)
        if at != -1:
            instruction = next(i for i in document.instructions if i.span.end > at)
            edits = (Edit(Span(at, at + len(self.old)), self.new),)
            seen = (facts.seen(instruction, "here"),)
            yield Rewrite(self, self.old, Safety.SAFE, edits, seen, changes=self.changes)


class Remarking:
    """Adds a comment alone, and may change files of these kinds all the same."""

    def __init__(self, *files: FileChange, name: str = "remarking", may: tuple[Aspect, ...] = ()) -> None:
        self.meta = meta(name, (), files, may)

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        text = document.source.text
        remark = f"# {self.meta.name}\n"
        if remark not in text:
            seen = (facts.seen(document.instructions[0], "here"),)
            yield Rewrite(self, "s", Safety.SAFE, (Edit(Span(len(text), len(text)), remark),), seen)


class Ignoring:
    """Writes a .dockerignore."""

    def __init__(self, text: str, *files: FileChange) -> None:
        self.meta = meta("ignoring", (), files)
        self.text = text

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        if facts.context.ignore_path is None:
            seen = (facts.seen(document.instructions[0], "here"),)
            yield Rewrite(self, "s", Safety.SAFE, (), seen, files=(CompanionFile(".dockerignore", self.text),))


EVERYTHING = tuple(FileChange)
TEXT = 'FROM x\nWORKDIR /app\nCOPY . .\nCMD ["run"]\n'
STAGES = 'FROM x AS build\nWORKDIR /app\nCOPY . .\nFROM x\nCOPY --from=build /app/out /app/out\nCMD ["run"]\n'
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"
BASE: Files = {"/usr/bin/sh": file("sh", mode=0o755), "/usr/local/lib/base.txt": file("base"), "/etc/base": file("x")}


def narrowed(old: str, new: str, **more: Any) -> Replacing:
    return Replacing(old, new, Change(Aspect.COPIES, removed=(old,), added=(new,)), **more)


def swapped(*files: FileChange) -> Replacing:
    """Takes another base image."""
    return Replacing("FROM x\n", "FROM y\n", Change(Aspect.BASE, removed=("x",), added=("y",)), name="swapped", files=files)


class Pair:
    """A Dockerfile, its build context on disk, and what transforms make of it; images are compared with it in mind."""

    def __init__(self, root: Path, *transforms: Transform, text: str = TEXT, context: dict[str, str] | None = None) -> None:
        self.files = {"main.py": "main", "lib/a.py": "a", "notes.md": "notes"} if context is None else context
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.document = Document.parse(text.encode())
        self.context = BuildContext(root, "Dockerfile")
        self.transforms = transforms
        self.outcome = optimize(self.document, self.context, Settings(), transforms)
        assert not self.outcome.errors
        assert [rewrite.name for rewrite in self.outcome.applied] == [transform.meta.name for transform in transforms]

    def facts(self, count: int) -> Facts:
        part = optimize(self.document, self.context, Settings(), self.transforms, at_most=count)
        return Facts(part.after, self.context.with_files({made.path: made.text for made in part.files}))

    def copied(self, place: str = "/app") -> Files:
        """The files of the context, as COPY brings them."""
        return {f"{place}/{name}": file(content) for name, content in self.files.items()}

    def compared(self, before: Snapshot, after: Snapshot, old: Any = None, new: Any = None) -> Comparison:
        """`old` and `new` are fields of the two configurations; the new ones come on top of the old."""
        fields = {"WorkingDir": "/app", "Env": [PATH], **(old or {})}
        images = (Image("a", config_of(**fields), before), Image("b", config_of(**{**fields, **(new or {})}), after))
        return Comparison(*images, self.outcome.applied, self.facts)

    def files_of(self, before: Files, after: Files, *, base: Files | None = None, **config: Any) -> dict[str, str | None]:
        """What differs between the files of two images on one base (`base`: the new one), and who announced it."""
        old = image_of(BASE, before, base=1)
        new = image_of(BASE if base is None else base, after, base=1)
        return {d.what: d.by for d in self.compared(old, new, **config).files()}


def without(files: Files, *paths: str) -> Files:
    assert all(path in files for path in paths)
    return {path: entry for path, entry in files.items() if path not in paths}


# ---------------------------------------------------------------- missing files


def test_an_image_does_not_differ_from_itself(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    image = image_of(BASE, pair.copied(), base=1)
    assert list(pair.compared(image, image).differences()) == []


def test_a_file_that_is_still_copied_must_be_there_whatever_is_announced(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(*EVERYTHING), Remarking(*EVERYTHING))
    full = pair.copied()
    assert pair.files_of(full, without(full, "/app/lib/a.py")) == {"missing: /app/lib/a.py": None}


def _narrow(root: Path, *files: FileChange) -> tuple[Pair, list[Difference]]:
    pair = Pair(root, Remarking(*EVERYTHING), narrowed("COPY . .", "COPY main.py lib ./", name="narrow", files=files))
    full = pair.copied()
    comparison = pair.compared(image_of(BASE, full, base=1), image_of(BASE, without(full, "/app/notes.md"), base=1))
    return pair, list(comparison.files())


@pytest.mark.parametrize("files", [(), tuple(set(FileChange) - {FileChange.IGNORED, FileChange.BUILD})])
def test_a_copy_that_is_narrowed_and_not_announced_is_a_failure_with_a_suspect(
    tmp_path: Path, files: tuple[FileChange, ...]
) -> None:
    pair, (found,) = _narrow(tmp_path, *files)
    assert found == Difference(Area.FILES, "missing: /app/notes.md", None, 1, pair.outcome.applied[1].key)
    assert failures([found]) == (found,)


@pytest.mark.parametrize("change", [FileChange.IGNORED, FileChange.BUILD])
def test_a_copy_that_is_narrowed_as_announced_is_no_failure(tmp_path: Path, change: FileChange) -> None:
    _, (found,) = _narrow(tmp_path, change)
    assert found == Difference(Area.FILES, f"missing, {change.value}: /app/notes.md", "narrow")
    assert failures([found]) == ()


def test_what_dockerignore_leaves_out_is_announced_and_what_it_does_not_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Ignoring("*.md\n", FileChange.IGNORED))
    full = pair.copied()
    assert pair.files_of(full, without(full, "/app/notes.md", "/app/main.py")) == {
        "missing, files that .dockerignore leaves out: /app/notes.md": "ignoring",
        "missing: /app/main.py": None,
    }


def test_a_dockerignore_of_a_transform_that_may_write_none_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.IGNORED), Ignoring("*.md\n", FileChange.BASE))
    full = pair.copied()
    images = (image_of(full), image_of(without(full, "/app/notes.md")))
    (found,) = pair.compared(*images).files()
    assert (found.by, found.suspect) == (None, pair.outcome.applied[1].key)


def test_a_file_of_the_base_goes_with_another_base(tmp_path: Path) -> None:
    expected = {"missing, files of the base image: /usr/local/lib/base.txt": "swapped"}
    pair = Pair(tmp_path / "a", swapped(FileChange.BASE))
    base = without(BASE, "/usr/local/lib/base.txt")
    assert pair.files_of(pair.copied(), pair.copied(), base=base) == expected


@pytest.mark.parametrize(
    "transform",
    [
        swapped(*(set(FileChange) - {FileChange.BASE, FileChange.BUILD})),
        Remarking(FileChange.BASE, may=(Aspect.BASE,)),
        Remarking(FileChange.IGNORED, FileChange.DEVELOPMENT),
    ],
)
def test_a_file_of_the_base_does_not_go_by_itself(tmp_path: Path, transform: Transform) -> None:
    pair = Pair(tmp_path, transform)
    base = without(BASE, "/usr/local/lib/base.txt")
    assert pair.files_of(pair.copied(), pair.copied(), base=base) == {"missing: /usr/local/lib/base.txt": None}


def test_a_transform_that_has_no_part_in_the_base_may_lose_its_files(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.BASE))
    found = pair.files_of(pair.copied(), pair.copied(), base=without(BASE, "/usr/local/lib/base.txt"))
    assert list(found.values()) == ["remarking"]


def test_a_file_that_a_command_made_does_not_go_with_the_base(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(FileChange.BASE))
    full = {**pair.copied(), "/usr/local/bin/tool": file("x")}
    assert pair.files_of(full, without(full, "/usr/local/bin/tool")) == {"missing: /usr/local/bin/tool": None}


def _with_packages(*names: str) -> Files:
    status = "\n".join(f"Package: {name}\nStatus: install ok installed\n" for name in names)
    files: Files = {"/var/lib/dpkg/status": file(status), "/bin": link("usr/bin")}
    for name in names:
        files[f"/usr/bin/{name}"] = file(name, mode=0o755)
        files[f"/var/lib/dpkg/info/{name}.list"] = file(f"/.\n/bin/{name}\n")
    return files


def test_the_files_of_a_package_go_with_it(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.PACKAGES))
    before = {**_with_packages("curl", "perl"), "/usr/bin/own": file("own")}
    assert pair.files_of(before, _with_packages("curl")) == {
        "missing, files of system packages that no line names: /usr/bin/perl": "remarking",
        "missing: /usr/bin/own": None,
    }


def test_the_files_of_a_package_that_stays_do_not_go(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.PACKAGES))
    files = _with_packages("curl", "perl")
    assert pair.files_of(files, without(files, "/usr/bin/perl")) == {"missing: /usr/bin/perl": None}


def test_the_files_of_a_package_do_not_go_unannounced(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.DEVELOPMENT, FileChange.BASE, FileChange.IGNORED))
    assert pair.files_of(_with_packages("curl", "perl"), _with_packages("curl")) == {"missing: /usr/bin/perl": None}


def _at(path: str, **fields: Any) -> Files:
    return {f"{path}/package.json": file(json.dumps(fields)), f"{path}/index.js": file(path)}


NODE: Files = {
    "/app/package.json": file(json.dumps({"dependencies": {"express": "4"}, "devDependencies": {"debug": "4"}})),
    **_at("/app/node_modules/express", version="4.18.0", dependencies={"debug": "2"}),
    **_at("/app/node_modules/express/node_modules/debug", version="2.6.9"),
    **_at("/app/node_modules/debug", version="4.3.4"),
    "/app/node_modules/.bin/debug": link("../debug/index.js"),
}
TOP = ("/app/node_modules/debug/package.json", "/app/node_modules/debug/index.js")
NESTED = tuple(path.replace("/debug/", "/express/node_modules/debug/") for path in TOP)


def test_packages_for_development_go_and_needed_ones_do_not(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.DEVELOPMENT), context={})
    found = pair.files_of(NODE, without(NODE, *TOP, "/app/node_modules/.bin/debug"))
    assert found == {"missing, development dependencies: /app/node_modules/.bin/debug and others": "remarking"}
    lost = pair.files_of(NODE, without(NODE, *NESTED))
    assert lost == {f"missing: {path}": None for path in NESTED}


def test_packages_for_development_do_not_go_unannounced(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.IGNORED, FileChange.PACKAGES, FileChange.BASE), context={})
    assert set(pair.files_of(NODE, without(NODE, *TOP)).values()) == {None}


def test_a_link_to_a_program_for_development_may_lead_nowhere(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "a", Remarking(FileChange.DEVELOPMENT), context={})
    found = pair.files_of(NODE, without(NODE, *TOP))
    assert found["link to nowhere (../debug/index.js): /app/node_modules/.bin/debug"] == "remarking"


def test_a_program_installed_for_all_is_not_for_development(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.DEVELOPMENT), context={})
    tool = _at("/usr/local/lib/node_modules/pm2", version="5.3.0")
    comparison = pair.compared(image_of(BASE, {**NODE, **tool}, base=1), image_of(BASE, NODE, base=1))
    assert {(d.area, d.by) for d in comparison.differences()} == {(Area.FILES, None), (Area.PACKAGES, None)}


def test_what_stays_in_the_build_stage_is_announced_and_what_is_brought_must_be_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.BUILD), text=STAGES)
    before: Files = {"/app/out/a.js": file("a"), "/app/out/b.js": file("b"), "/app/cache/x": file("x")}
    assert pair.files_of(before, without(before, "/app/out/b.js", "/app/cache/x")) == {
        "missing, files that stay in the build stage: /app/cache/x": "remarking",
        "missing: /app/out/b.js": None,
    }


def test_what_stays_in_the_build_stage_is_a_failure_unless_it_is_announced(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*(set(FileChange) - {FileChange.BUILD})), text=STAGES)
    before: Files = {"/app/out/a.js": file("a"), "/app/x": file("x")}
    assert pair.files_of(before, without(before, "/app/x")) == {"missing: /app/x": None}


def test_a_name_that_begins_like_what_is_brought_is_not_brought(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.BUILD), text=STAGES)
    before: Files = {"/app/out/a.js": file("a"), "/app/output.log": file("x")}
    assert list(pair.files_of(before, without(before, "/app/output.log")).values()) == ["remarking"]


def test_a_bundle_with_another_hash_in_its_name_is_the_same(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    before = {**pair.copied(), "/app/dist/index-4f3a9b21.js": file("1"), "/app/dist/0a1b2c3d/x.css": file("1")}
    after = {**pair.copied(), "/app/dist/index-77aa00bb.js": file("2"), "/app/dist/9f8e7d6c/x.css": file("1")}
    assert [what for what in pair.files_of(before, after) if not what.endswith(("0a1b2c3d", "9f8e7d6c"))] == []


@pytest.mark.parametrize(
    ("old", "other"),
    [
        ("dist/index-4f3a9b21.js", "dist/index-77aa00bb.css"),
        ("dist/index-4f3a9b21.js", "other/index-77aa00bb.js"),
        ("dist/index.4f3a9b21.js", "dist/vendor.77aa00bb.js"),
        ("dist/index.4f3a9b21.js", "dist/index.77aa.js"),
        ("dist/index-4f3a9b21.js", "dist/vendor-77aa00bb.js"),
        ("dist/index-4f3a9b21.js", "dist/index-7.js"),
        ("dist/0001_initial.py", "dist/0002_users.py"),
    ],
)
def test_a_bundle_of_another_name_is_not(tmp_path: Path, old: str, other: str) -> None:
    pair = Pair(tmp_path)
    kept = {**pair.copied(), "/app/dist/kept": file()}
    found = pair.files_of({**kept, f"/app/{old}": file("1")}, {**kept, f"/app/{other}": file("1")})
    assert found == {f"missing: /app/{old}": None, f"new: /app/{other}": None}


def test_one_new_bundle_does_not_stand_for_two(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    before = {"/app/dist/chunk-4f3a9b21.js": file("1"), "/app/dist/chunk-5f3a9b21.js": file("1")}
    found = pair.files_of({**pair.copied(), **before}, {**pair.copied(), "/app/dist/chunk-77aa00bb.js": file("2")})
    assert len(found) == 1
    assert list(found.values()) == [None]


@pytest.mark.parametrize(
    "path",
    [
        "/app/__pycache__/a.cpython-312.pyc",
        "/app/a.pyc",
        "/app/.cache/x",
        "/app/node_modules/.package-lock.json",
        "/tmp/x",
        "/var/cache/apt/x",
        "/etc/other",
        "/usr/share/outside",
    ],
)
def test_caches_and_what_lies_outside_are_not_compared(tmp_path: Path, path: str) -> None:
    pair = Pair(tmp_path)
    assert pair.files_of({**pair.copied(), path: file()}, pair.copied()) == {}
    assert pair.files_of(pair.copied(), {**pair.copied(), path: file()}) == {}


@pytest.mark.parametrize("path", ["/opt/outside", "/data/x", "/application/x"])
def test_what_an_own_layer_put_into_a_folder_of_its_own_must_be_there(tmp_path: Path, path: str) -> None:
    pair = Pair(tmp_path)
    assert pair.files_of({**pair.copied(), path: file()}, pair.copied()) == {f"missing: {path}": None}


def test_an_empty_folder_must_be_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    assert pair.files_of({**pair.copied(), "/app/uploads": folder()}, pair.copied()) == {"missing: /app/uploads": None}


def test_a_file_that_links_lead_to_is_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    before = {**pair.copied(), "/bin/tool": file("x")}
    after = {**pair.copied(), "/bin": link("usr/bin"), "/usr/bin/tool": file("x")}
    assert pair.files_of(before, after) == {"new: /usr/bin/tool": None}
    assert pair.files_of(before, {**pair.copied(), "/bin": link("usr/bin")}) == {"missing: /bin/tool": None}


def test_of_many_failures_some_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    many: Files = {f"/app/{number:02}": file() for number in range(13)}
    comparison = pair.compared(image_of({**pair.copied(), **many}), image_of(pair.copied()))
    found = list(comparison.files())
    assert [d.what for d in found[:2]] == ["missing: /app/00", "missing: /app/01"]
    assert len(found) == 11
    assert (found[-1].what, found[-1].count, found[-1].by) == ("missing: 3 more", 3, None)


def test_what_is_announced_is_counted_together(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(FileChange.BASE))
    base = {**BASE, **{f"/usr/local/share/{number}": file() for number in range(13)}}
    comparison = pair.compared(image_of(base, pair.copied(), base=1), image_of(BASE, pair.copied(), base=1))
    (found,) = comparison.files()
    assert found.what.startswith("missing, files of the base image: /usr/local/share")
    assert found.what.endswith(" and others")
    assert found.count >= 13


def test_a_file_copied_to_the_top_must_be_there(tmp_path: Path) -> None:
    text = 'FROM x\nWORKDIR /app\nCOPY start.sh /start.sh\nCMD ["/start.sh"]\n'
    pair = Pair(tmp_path, text=text, context={"start.sh": "#!/bin/sh\n"})
    assert pair.files_of({"/start.sh": file("#!/bin/sh\n")}, {}) == {"missing: /start.sh": None}


def test_what_comes_from_another_stage_must_be_there(tmp_path: Path) -> None:
    text = 'FROM x AS build\nRUN a\nFROM x\nCOPY --from=build /out /usr/share/nginx/html\nCMD ["run"]\n'
    pair = Pair(tmp_path, text=text, context={})
    before: Files = {"/usr/share/nginx/html/index.html": file("1"), "/usr/share/nginx/html/50x.html": file("2")}
    after = without(before, "/usr/share/nginx/html/index.html")
    found = pair.files_of(before, after, old={"WorkingDir": "/"})
    assert found == {"missing: /usr/share/nginx/html/index.html": None}


def test_what_is_copied_outside_of_the_working_folder_must_be_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path, text="FROM x\nWORKDIR /app\nCOPY conf /etc/app/\n", context={"conf/a": "a", "conf/b/c": "c"})
    full: Files = {"/etc/app/a": file("a"), "/etc/app/b/c": file("c")}
    assert pair.files_of(full, without(full, "/etc/app/a")) == {"missing: /etc/app/a": None}


# ---------------------------------------------------------------- new files


def test_a_new_file_is_a_failure_unless_it_is_announced(tmp_path: Path) -> None:
    for transform, by in ((Remarking(FileChange.ADDED), "remarking"), (Remarking(FileChange.BASE, FileChange.OWNER), None)):
        pair = Pair(tmp_path, transform)
        assert pair.files_of(pair.copied(), {**pair.copied(), "/app/new": file()}) == {"new: /app/new": by}


def test_a_new_folder_alone_is_none(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    assert pair.files_of(pair.copied(), {**pair.copied(), "/app/new": folder()}) == {}


def test_a_new_file_of_the_base_comes_with_another_base(tmp_path: Path) -> None:
    base = {**BASE, "/usr/bin/new": file()}
    pair = Pair(tmp_path, swapped(FileChange.BASE))
    assert pair.files_of(pair.copied(), pair.copied(), base=base) == {"new, of the base image: /usr/bin/new": "swapped"}
    pair = Pair(tmp_path, swapped(*(set(FileChange) - {FileChange.BASE})))
    assert pair.files_of(pair.copied(), pair.copied(), base=base) == {"new, of the base image: /usr/bin/new": None}


def test_a_new_file_that_the_dockerfile_brings_is_its_own(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "a")
    before = without(pair.copied(), "/app/main.py")
    assert pair.files_of(before, pair.copied()) == {"new: /app/main.py": "the Dockerfile"}
    pair = Pair(tmp_path / "b", text=STAGES)
    before = {"/app/out/a": file()}
    after: Files = {**before, "/app/out/b": file(), "/app/b": file()}
    assert pair.files_of(before, after) == {"new: /app/out/b": "the Dockerfile", "new: /app/b": None}


# ---------------------------------------------------------------- changed files

PASSWD: Files = {
    "/etc/passwd": file("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbroken\nbad:x:a:b:\nweb:x:33:33::/:\n")
}


def _owned(pair: Pair, owner: tuple[int, int], user: str) -> str | None:
    after = {**pair.copied(), **PASSWD, "/app/main.py": file("main", owner=owner)}
    ((what, by),) = pair.files_of({**pair.copied(), **PASSWD}, after, new={"User": user}).items()
    assert what == f"owner 0:0 -> {owner[0]}:{owner[1]}: /app/main.py"
    return by


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("app", (1000, 1001)),
        ("1000", (1000, 1001)),
        ("1000", (1000, 1000)),
        ("1000", (1000, 0)),
        ("1000:7", (1000, 7)),
        ("2000", (2000, 2000)),
        ("app:app", (1000, 1001)),
    ],
)
def test_a_file_may_become_the_new_users(tmp_path: Path, user: str, owner: tuple[int, int]) -> None:
    assert _owned(Pair(tmp_path, Remarking(FileChange.OWNER)), owner, user) == "remarking"
    assert _owned(Pair(tmp_path, Remarking(*(set(FileChange) - {FileChange.OWNER}))), owner, user) is None


@pytest.mark.parametrize(
    ("user", "owner"),
    [("app", (33, 33)), ("app", (1000, 7)), ("app", (1001, 1000)), ("", (1000, 1001)), ("2000", (2000, 7)), ("gone", (5, 5))],
)
def test_a_file_may_not_become_somebody_elses(tmp_path: Path, user: str, owner: tuple[int, int]) -> None:
    assert _owned(Pair(tmp_path, Remarking(FileChange.OWNER)), owner, user) is None


def test_a_file_may_become_the_new_users_and_its_groups(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.OWNER))
    accounts = {**PASSWD, "/etc/group": file("root:x:0:\nstaff:x:50:\n")}
    after = {**pair.copied(), **accounts, "/app/main.py": file("main", owner=(1000, 50))}
    assert pair.files_of({**pair.copied(), **accounts}, after, new={"User": "app:staff"}) == {
        "owner 0:0 -> 1000:50: /app/main.py": "remarking"
    }


@pytest.mark.parametrize("changed", [file("main", mode=0o755), file("main", mode=0o640)])
def test_another_mode_is_a_failure(tmp_path: Path, changed: Any) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    found = pair.files_of(pair.copied(), {**pair.copied(), "/app/main.py": changed})
    assert found == {f"mode 644 -> {changed.mode:o}: /app/main.py": None}


def test_a_folder_of_another_mode_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    found = pair.files_of({"/app/x": folder()}, {"/app/x": folder(mode=0o1777)})
    assert found == {"mode 755 -> 1777: /app/x": None}


def test_what_the_new_base_has_otherwise_is_announced(tmp_path: Path) -> None:
    base: Files = {**BASE, "/usr/bin/sh": file("sh", mode=0o700, owner=(1, 1))}
    expected = {"owner 0:0 -> 1:1: /usr/bin/sh", "mode 755 -> 700: /usr/bin/sh"}
    for number, (transform, by) in enumerate(((swapped(FileChange.BASE), "swapped"), (swapped(FileChange.OWNER), None))):
        pair = Pair(tmp_path / f"{number}", transform)
        assert pair.files_of({}, {}, base=base) == dict.fromkeys(expected, by)


def test_a_link_to_nowhere_is_a_failure_unless_it_was_one(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    before = {**pair.copied(), "/app/link": link("/usr/share/target"), "/app/old": link("/gone"), "/usr/share/target": file()}
    after = without(before, "/usr/share/target")
    assert pair.files_of(before, after) == {"link to nowhere (/usr/share/target): /app/link": None}


def test_a_file_that_became_a_link_to_nowhere_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    found = pair.files_of({"/app/x": file("x")}, {"/app/x": link("gone")})
    assert found == {"link to nowhere (gone): /app/x": None}


@pytest.mark.parametrize(("old", "new"), [(file("x", mode=0o755), folder()), (folder(), file("x", mode=0o755))])
def test_a_file_that_became_a_folder_is_a_failure(tmp_path: Path, old: Any, new: Any) -> None:
    assert list(Pair(tmp_path).files_of({"/app/x": old}, {"/app/x": new}).values()) == [None]


def test_other_contents_than_those_of_the_context_are_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    expected = {"other contents than the build context has: /app/main.py": None}
    for text in ("niam", "longer", ""):
        assert pair.files_of(pair.copied(), {**pair.copied(), "/app/main.py": file(text)}) == expected


def test_contents_that_the_build_made_may_differ(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    made = {**pair.copied(), "/app/main.py": file("made 1"), "/app/built": file("1")}
    assert pair.files_of(made, {**made, "/app/main.py": file("made 2"), "/app/built": file("2")}) == {}


def test_contents_that_cannot_be_read_any_more_are_not_compared(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    images = (image_of(pair.copied()), image_of({**pair.copied(), "/app/main.py": file("other")}))
    assert len(list(pair.compared(*images).files())) == 1
    comparison = pair.compared(*images)
    assert "/app/main.py" in comparison.announced.placements(0)
    (tmp_path / "main.py").unlink()
    assert list(comparison.files()) == []


def test_the_contents_of_large_files_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(tmp_path)
    monkeypatch.setattr(file_changes, "MAX_DIGEST", 4)
    assert pair.files_of(pair.copied(), {**pair.copied(), "/app/main.py": file("larger")}) == {}
    assert len(pair.files_of(pair.copied(), {**pair.copied(), "/app/main.py": file("four")})) == 1


# ---------------------------------------------------------------- configuration


def _configured(pair: Pair, old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str | None]]:
    found = list(pair.compared(image_of({}), image_of({}), old, new).configuration())
    assert {d.area for d in found} <= {Area.CONFIG}
    return [(d.what, d.by) for d in found]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ({"Env": [PATH, "LANG=C"]}, {"Env": [PATH]}, "Env LANG: C -> not set"),
        ({"Labels": {"maker": "a"}}, {"Labels": {"maker": "b"}}, "Labels maker: a -> b"),
    ],
)
def test_what_the_base_alone_sets_changes_with_the_base(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], what: str
) -> None:
    assert _configured(Pair(tmp_path, swapped(FileChange.BASE)), old, new) == [(what, "swapped")]
    assert _configured(Pair(tmp_path, Remarking(*EVERYTHING, may=(Aspect.BASE,))), old, new) == [(what, None)]
    named = "FROM x\nENV LANG=C\nLABEL maker=a\n"
    assert _configured(Pair(tmp_path, swapped(FileChange.BASE), text=named), old, new) == [(what, None)]


def test_a_label_that_a_line_names_in_quotes_does_not_change_with_the_base(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(FileChange.BASE), text='FROM x\nLABEL "maker"="a"\n')
    assert _configured(pair, {"Labels": {"maker": "a"}}, {}) == []
    assert _configured(pair, {"Labels": {"maker": "a"}}, {"Labels": {"maker": "b"}}) == [("Labels maker: a -> b", None)]


@pytest.mark.parametrize(
    ("field", "value"),
    [("User", "app"), ("Cmd", ["x"]), ("WorkingDir", "/"), ("StopSignal", "SIGINT"), ("ExposedPorts", {"1/tcp": {}})],
)
def test_other_fields_do_not_change_with_the_base(tmp_path: Path, field: str, value: Any) -> None:
    ((_, by),) = _configured(Pair(tmp_path, swapped(*EVERYTHING)), {}, {field: value})
    assert by is None


def test_the_shell_of_runs_stays_in_the_build_stage(tmp_path: Path) -> None:
    old, new = {"Shell": ["/bin/bash", "-c"]}, {"Shell": None}
    assert [by for _, by in _configured(Pair(tmp_path, Remarking(FileChange.BUILD)), old, new)] == ["remarking"]
    assert [by for _, by in _configured(Pair(tmp_path, swapped(FileChange.BASE)), old, new)] == [None]


def test_a_change_that_is_declared_is_named_after_its_rewrite(tmp_path: Path) -> None:
    change = Change(Aspect.USER, removed=("a",), added=("b",))
    pair = Pair(tmp_path, Replacing("USER a", "USER b", change), text="FROM x\nUSER a\n")
    assert _configured(pair, {"User": "a"}, {"User": "b", "Cmd": ["x"]}) == [
        ("Cmd: not set -> ['x']", None),
        ("User: a -> b", "replacing"),
    ]


# ---------------------------------------------------------------- packages of languages

SITE = "/usr/local/lib/python3.12/site-packages"


def _python(*names: str) -> Files:
    return {f"{SITE}/{name}.dist-info": folder() for name in names}


def _packages(pair: Pair, before: Files, after: Files, base: Files | None = None) -> list[tuple[str, str | None, int]]:
    images = (image_of(BASE, before, base=1), image_of(base or BASE, after, base=1))
    found = list(pair.compared(*images).packages())
    assert {d.area for d in found} <= {Area.PACKAGES}
    return [(d.what, d.by, d.count) for d in found]


def test_a_package_that_is_gone_or_of_another_version_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(*EVERYTHING))
    before = _python("Flask-3.0.0", "requests-2.31.0", "same-1.0")
    assert _packages(pair, before, _python("flask-3.0.1", "same-1.0", "new-1.0")) == [
        ("flask 3.0.0 (python) became 3.0.1", None, 1),
        ("requests 2.31.0 (python) is gone", None, 1),
    ]


def test_a_package_in_another_folder_or_of_the_new_base_is_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    before = _python("Flask_Cors-4.0")
    assert _packages(pair, before, {"/app/venv/lib/flask_cors-4.0.dist-info": folder()}) == []
    assert _packages(pair, before, {}, base={**BASE, **_python("flask.cors-4.0")}) == []


def test_the_packages_of_the_base_are_not_compared(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    images = (image_of({**BASE, **_python("a-1")}, {}, base=1), image_of(BASE, {}, base=1))
    assert list(pair.compared(*images).packages()) == []


def test_pip_stays_behind_where_that_is_announced(tmp_path: Path) -> None:
    before = _python("pip-23.2", "setuptools-69.0", "wheel-0.42", "pipx-1.0")
    announced = Pair(tmp_path / "a", Remarking(FileChange.BUILD))
    assert _packages(announced, before, {}) == [
        ("pipx 1.0 (python) is gone", None, 1),
        ("not installed: pip 23.2, setuptools 69.0, wheel 0.42", "remarking", 3),
    ]
    other = Pair(tmp_path / "b", Remarking(*(set(FileChange) - {FileChange.BUILD})))
    assert [by for _, by, _ in _packages(other, before, {})] == [None] * 4


def test_a_node_package_called_pip_is_not_pip(tmp_path: Path) -> None:
    before: Files = {"/app/package.json": file('{"dependencies": {"pip": "1"}}'), **_at("/app/node_modules/pip", version="1")}
    pair = Pair(tmp_path, Remarking(FileChange.BUILD, FileChange.DEVELOPMENT), context={})
    assert _packages(pair, before, {}) == [("pip 1 (node) is gone", None, 1)]


def test_node_packages_for_development_stay_behind_where_that_is_announced(tmp_path: Path) -> None:
    more = {path: entry for number in range(4) for path, entry in _at(f"/app/node_modules/d{number}", version="1").items()}
    announced = Pair(tmp_path / "a", Remarking(FileChange.DEVELOPMENT), context={})
    after = without(NODE, *TOP)
    assert _packages(announced, {**NODE, **more}, after) == [("not installed: d0 1, d1 1, d2 1, ...", "remarking", 5)]
    other = Pair(tmp_path / "b", Remarking(*(set(FileChange) - {FileChange.DEVELOPMENT})), context={})
    assert _packages(other, NODE, after) == [("debug 4.3.4 (node) became 2.6.9", None, 1)]


def test_a_needed_node_package_stays(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(FileChange.DEVELOPMENT), context={})
    assert _packages(pair, NODE, without(NODE, *NESTED)) == [("debug 2.6.9 (node) became 4.3.4", None, 1)]


def test_a_gem_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    assert _packages(pair, {"/usr/local/bundle/specifications/rack-3.0.gemspec": file()}, {}) == [
        ("rack 3.0 (ruby) is gone", None, 1)
    ]


# ---------------------------------------------------------------- linkage


def _elf(*needed: str, versions: tuple[tuple[str, str], ...] = (), provides: tuple[str, ...] = (), loader: str = "") -> Any:
    return file(" ".join(needed), mode=0o755, program=Elf("EM_X86_64", needed, versions, frozenset(provides), (), loader))


def _linkage(pair: Pair, before: Snapshot, after: Snapshot, **config: Any) -> list[str]:
    found = list(pair.compared(before, after, **config).linkage())
    assert {(d.area, d.by) for d in found} <= {(Area.LINKAGE, None)}
    return [d.what for d in found]


RUN: Files = {"/app/run": _elf("liba.so")}


def test_a_library_that_is_lost_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    before = image_of({"/usr/lib/liba.so": _elf()}, RUN, base=1)
    assert _linkage(pair, before, before) == []
    assert _linkage(pair, before, image_of({}, RUN, base=1)) == ["/app/run needs liba.so"]


def test_a_library_that_was_never_there_is_none(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    assert _linkage(pair, image_of(RUN), image_of(RUN)) == []
    assert _linkage(pair, image_of(RUN), image_of({"/app/elsewhere/run": _elf("liba.so")})) == []
    assert _linkage(pair, image_of(RUN), image_of({"/app/other": _elf("liba.so")})) == ["/app/other needs liba.so"]


def test_alike_losses_are_counted_together(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    files: Files = {f"/app/{number}": _elf("liba.so") for number in range(3)}
    comparison = pair.compared(image_of({**files, "/usr/lib/liba.so": _elf()}), image_of(files))
    assert [(d.what, d.count) for d in comparison.linkage()] == [("/app/0 needs liba.so", 3)]


def test_a_symbol_version_that_is_lost_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    run: Files = {"/app/run": _elf("libc.so.6", versions=(("libc.so.6", "GLIBC_2.34"),))}
    before = image_of({"/lib/libc.so.6": _elf(provides=("GLIBC_2.17", "GLIBC_2.34"))}, run, base=1)
    after = image_of({"/lib/libc.so.6": _elf(provides=("GLIBC_2.17",))}, run, base=1)
    assert _linkage(pair, before, after) == ["/app/run needs GLIBC_2.34 of libc.so.6"]
    assert _linkage(pair, after, before) == []


def test_a_lost_dynamic_linker_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    run: Files = {"/app/run": _elf(loader="/lib64/ld-linux-x86-64.so.2")}
    before = image_of({"/lib64/ld-linux-x86-64.so.2": _elf()}, run, base=1)
    after = image_of({"/lib/ld-musl-x86_64.so.1": _elf()}, run, base=1)
    assert _linkage(pair, before, after) == ["/app/run needs the dynamic linker /lib64/ld-linux-x86-64.so.2"]


def test_a_search_path_that_is_lost_from_the_environment_does_no_harm_where_the_library_is(tmp_path: Path) -> None:
    image = image_of({**RUN, "/opt/lib/liba.so": _elf()})
    new = {"Env": [PATH]}
    assert _linkage(Pair(tmp_path), image, image, old={"Env": [PATH, "LD_LIBRARY_PATH=/opt/lib"]}, new=new) == []


BASE_PROGRAM: Files = {"/usr/bin/tool": _elf("libb.so"), "/usr/lib/libb.so": _elf(), "/usr/lib/libz.so": _elf()}


def test_what_the_base_ships_broken_is_no_failure(tmp_path: Path) -> None:
    before = image_of(BASE_PROGRAM, RUN, base=1)
    broken = without(BASE_PROGRAM, "/usr/lib/libb.so")
    own: Files = {"/app/run": _elf()}
    assert _linkage(Pair(tmp_path), before, image_of(broken, own, base=1)) == []
    taken = image_of(broken, own, base=1, deleted={1: ("/usr/lib/libz.so",)})
    assert _linkage(Pair(tmp_path), before, taken) == []


def test_a_library_taken_from_the_base_is_a_failure(tmp_path: Path) -> None:
    before = image_of(BASE_PROGRAM, {"/app/run": _elf()}, base=1)
    after = image_of(BASE_PROGRAM, {"/app/run": _elf()}, base=1, deleted={1: ("/usr/lib/libb.so",)})
    assert _linkage(Pair(tmp_path), before, after) == ["/usr/bin/tool needs libb.so"]
    assert _linkage(Pair(tmp_path), after, after) == []


@pytest.mark.parametrize("what", ["GLIBC_2.34 of libc.so.6", "the dynamic linker /lib64/ld.so.2"])
def test_a_version_or_a_linker_taken_from_the_base_is_a_failure(tmp_path: Path, what: str) -> None:
    base: Files = {
        "/usr/bin/tool": _elf("libc.so.6", versions=(("libc.so.6", "GLIBC_2.34"),), loader="/lib64/ld.so.2"),
        "/lib/libc.so.6": _elf(provides=("GLIBC_2.17", "GLIBC_2.34")),
        "/lib64/ld.so.2": _elf(),
    }
    before = image_of(base, {"/app/data": file()}, base=1)
    if what.startswith("GLIBC"):
        after = image_of(base, {"/lib/libc.so.6": _elf(provides=("GLIBC_2.17",))}, base=1)
    else:
        after = image_of(base, {"/app/data": file()}, base=1, deleted={1: ("/lib64/ld.so.2",)})
    assert _linkage(Pair(tmp_path), before, after) == [f"/usr/bin/tool needs {what}"]


# ---------------------------------------------------------------- interpreters

BASH: Files = {"/usr/bin/bash": file("bash", mode=0o755)}


@pytest.mark.parametrize(
    ("path", "config"),
    [("/usr/bin/start", {}), ("/opt/start", {"Cmd": ["/opt/start", "x"]}), ("/opt/start", {"Entrypoint": ["/opt/start"]})],
)
def test_a_lost_interpreter_of_what_may_be_started_is_a_failure(tmp_path: Path, path: str, config: dict[str, Any]) -> None:
    own: Files = {path: script("/usr/bin/bash -e")}
    before, after = image_of(BASH, own, base=1), image_of({}, own, base=1)
    expected = [f"{path} needs the interpreter /usr/bin/bash"]
    assert _linkage(Pair(tmp_path), before, after, old=config) == expected
    assert _linkage(Pair(tmp_path), before, before, old=config) == []
    assert _linkage(Pair(tmp_path), after, after, old=config) == []
    assert _linkage(Pair(tmp_path), image_of(BASH, {}, base=1), after, old=config) == expected


def test_a_lost_interpreter_of_what_copy_brings_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, context={"tools/run.sh": "#!/usr/bin/env bash\n"})
    own: Files = {"/app/tools/run.sh": script("/usr/bin/env bash"), "/usr/bin/env": file("env", mode=0o755)}
    assert _linkage(pair, image_of(BASH, own, base=1), image_of({}, own, base=1)) == [
        "/app/tools/run.sh needs the interpreter bash"
    ]


def test_an_interpreter_of_what_nobody_starts_may_go(tmp_path: Path) -> None:
    elsewhere: Files = {"/app/vendor/test.sh": script("/usr/bin/bash")}
    text: Files = {"/usr/bin/notes": file("#!/usr/bin/bash\n")}
    for own in (elsewhere, text):
        assert _linkage(Pair(tmp_path), image_of(BASH, own, base=1), image_of({}, own, base=1)) == []
    base: Files = {"/usr/bin/start": script("/usr/bin/bash")}
    assert _linkage(Pair(tmp_path), image_of({**BASH, **base}, {}, base=1), image_of(base, {}, base=1)) == []


# ---------------------------------------------------------------- all together


def test_every_area_is_compared(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    before = image_of({}, {**pair.copied(), **RUN, **_python("a-1"), "/usr/lib/liba.so": _elf()})
    after = image_of({}, {**without(pair.copied(), "/app/main.py"), **RUN})
    found = list(pair.compared(before, after, {}, {"User": "app"}).differences())
    assert {d.area for d in found} == {Area.CONFIG, Area.FILES, Area.LINKAGE, Area.PACKAGES}
    assert failures(found) == tuple(found)


def test_failures_are_what_nobody_announced() -> None:
    bad, good = Difference(Area.FILES, "a"), Difference(Area.FILES, "b", "somebody")
    assert failures([good, bad]) == (bad,)
    assert failures([good]) == ()


def test_what_programs_read_without_naming_it_is_told(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(FileChange.BASE))
    zones: Files = {"/usr/share/zoneinfo/Europe/Berlin": file("x")}
    assert pair.files_of(zones, {}) == {"no time zones any more (/usr/share/zoneinfo/Europe/Berlin)": "swapped"}


def test_what_programs_read_without_naming_it_may_not_go_with_an_own_layer(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    bundle: Files = {"/etc/ssl/certs/ca-certificates.crt": file("x")}
    found = pair.files_of(bundle, {})
    assert found == {"no CA certificates any more (/etc/ssl/certs/ca-certificates.crt)": None}


def test_what_a_layer_takes_from_the_new_base_is_not_the_swaps(tmp_path: Path) -> None:
    pair = Pair(tmp_path, swapped(*EVERYTHING))
    zones: Files = {"/usr/local/lib/python3.11/zoneinfo/x.py": file("x")}
    after = image_of({**BASE, **zones}, pair.copied(), base=1, deleted={1: tuple(zones)})
    found = {d.what: d.by for d in pair.compared(image_of({**BASE, **zones}, pair.copied(), base=1), after).files()}
    assert found == {"missing: /usr/local/lib/python3.11/zoneinfo/x.py": None}


def test_what_package_managers_keep_for_themselves_may_go(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    lists: Files = {"/var/lib/apt/lists/partial/x": file("x")}
    after = image_of({**BASE, **lists}, pair.copied(), base=1, deleted={1: tuple(lists)})
    assert list(pair.compared(image_of({**BASE, **lists}, pair.copied(), base=1), after).files()) == []


def test_a_made_file_that_is_empty_now_is_a_failure(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Remarking(*EVERYTHING))
    made: Files = {**pair.copied(), "/app/model.bin": file("weights")}
    assert pair.files_of(made, {**made, "/app/model.bin": file("")}) == {"empty now: /app/model.bin": None}


def test_another_name_of_a_hard_link_is_not_empty(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    made: Files = {**pair.copied(), "/app/model.bin": file("weights")}
    linked = replace(file("weights"), size=0)
    assert pair.files_of(made, {**made, "/app/model.bin": linked}) == {}
