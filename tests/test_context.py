"""The build context, its ignore file, and where files are found."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from optimizer.discovery import context_folder, dockerfiles
from optimizer.dockerfile.document import Document
from optimizer.dockerfile.patterns import ignoring, matches, read_ignore_file
from optimizer.facts.context import BuildContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Expectations follow the examples of Docker's documentation and the tests of moby/patternmatcher.
IGNORES = [
    ("node_modules", "node_modules/a/b", True),
    ("node_modules", "a/node_modules", False),
    ("**/node_modules", "a/b/node_modules/x", True),
    ("**/node_modules", "node_modules", True),
    ("*/temp*", "somedir/temporary.txt", True),
    ("*/temp*", "temp", False),
    ("*/*/temp*", "a/b/temp", True),
    ("temp?", "tempa", True),
    ("temp?", "temp", False),
    ("/docs/", "docs/x", True),
    ("./docs", "docs", True),
    ("*.md\n!README*.md\nREADME-secret.md", "README.md", False),
    ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
    ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
    ("*\n!src", "src/a", False),
    ("*\n!src", "lib/a", True),
    ("# comment", "# comment", False),
    ("", "a", False),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**", "a/x", True),
    ("[a-c].txt", "b.txt", True),
    ("[^a-c].txt", "b.txt", False),
    ("a\\*b", "a*b", True),
    ("a\\*b", "axb", False),
    ("**/*.go", "x/y.go", True),
    ("**", "anything", True),
    ("a[", "a[", True),
    ("[z-a]", "b", False),
]


@pytest.mark.parametrize(("lines", "path", "expected"), IGNORES)
def test_ignore_files_follow_docker(lines: str, path: str, expected: bool) -> None:  # noqa: FBT001
    assert (ignoring(read_ignore_file(lines), path) is not None) is expected


def test_copy_wildcards_do_not_cross_folders() -> None:
    assert matches("*.json", "package.json")
    assert not matches("*.json", "a/package.json")
    assert matches("pack*/?.py", "packages/a.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.py", "src/b.py", "src/deep/c.py", "node_modules/x/index.js", "keep/d", "drop/e"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / ".dockerignore").write_text("node_modules\ndrop\n!drop/e\n")
    (tmp_path / "link.py").symlink_to("a.py")
    (tmp_path / "out").symlink_to("/etc")
    return tmp_path


def test_the_context_is_what_the_builder_gets(folder: Path) -> None:
    context = BuildContext(folder, "Dockerfile")
    assert context.is_file("a.py")
    assert context.is_file("./src//b.py")
    assert context.is_folder("src")
    assert context.is_folder("")
    assert context.kind("link.py") == "link"
    assert context.kind("node_modules/x/index.js") is None
    assert context.kind("drop") == "folder"
    assert context.kind("out/passwd") is None
    assert context.kind("../x") is None
    assert context.read("a.py") == "a.py"
    assert context.read("out/passwd") is None
    assert context.read("link.py") is None
    assert list(context.walk("src")) == ["src/b.py", "src/deep/c.py"]
    assert "drop/e" in list(context.walk())
    assert not any(path.startswith("node_modules") for path in context.walk())
    assert context.glob("src/*") == ("src/b.py", "src/deep")
    assert context.glob("*.py") == ("a.py", "link.py")
    assert context.glob("nothing") == ()
    assert context.is_executable("a.py") is False


def test_the_dockerfiles_own_ignore_file_wins(folder: Path) -> None:
    (folder / "x.Dockerfile.dockerignore").write_text("a.py\n")
    context = BuildContext(folder, "x.Dockerfile")
    assert context.ignore_path == "x.Dockerfile.dockerignore"
    assert context.kind("a.py") is None
    assert context.kind("node_modules") == "folder"


def test_a_file_created_by_a_rewrite_is_seen(folder: Path) -> None:
    (folder / ".dockerignore").unlink()
    before = BuildContext(folder, "Dockerfile")
    assert before.kind("node_modules") == "folder"
    after = before.with_files({".dockerignore": "node_modules\n"})
    assert after.kind("node_modules") is None
    assert not after.is_on_disk(".dockerignore")
    assert before.kind(".dockerignore") is None


def test_a_large_file_is_unknown(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate((8 << 20) + 1)
    assert BuildContext(folder).read_bytes("large") is None


def test_no_folder_is_no_context() -> None:
    context = BuildContext(None)
    assert not context.is_known
    assert context.kind("") is None
    assert context.kind("a") is None
    assert context.is_executable("a") is None
    assert context.ignored_by("a") is None


def test_dockerfiles_are_found_by_name(tmp_path: Path) -> None:
    names = ["Dockerfile", "Dockerfile.dev", "api.Dockerfile", "Containerfile", "sub/dockerfile", "sub/Dockerfile-x"]
    others = ["Dockerfile.dockerignore", "Dockerfile.md", "dockerfile.js", "README", "ignored/Dockerfile", ".git/Dockerfile"]
    for name in names + others + ["sub/gone/Dockerfile", "sub/kept/Dockerfile"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("FROM x\n")
    (tmp_path / ".gitignore").write_text("/ignored/\nkept\n")
    (tmp_path / "sub" / ".gitignore").write_text("gone\n!kept\n")
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    found = [path.relative_to(tmp_path).as_posix() for path in dockerfiles(tmp_path)]
    assert found == sorted([*names, "sub/kept/Dockerfile"])


def _context_of(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(context_folder(path, Document.parse(text.encode())).folder)


def test_the_context_is_the_folder_of_the_dockerfile(tmp_path: Path) -> None:
    assert _context_of(tmp_path / "Dockerfile", "FROM x\nCOPY gone /x\n") == str(tmp_path)


def test_a_folder_above_that_fits_as_well_is_a_doubt(tmp_path: Path) -> None:
    for name in (".git", "services/api"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("package.json", "services/api/package.json"):
        (tmp_path / name).write_text("{}")
    dockerfile = tmp_path / "services" / "api" / "Dockerfile"
    document = Document.parse(b"FROM node\nCOPY . .\n")
    found = context_folder(dockerfile, document)
    assert found.folder == dockerfile.parent
    assert "has what it copies too" in found.doubt
    (tmp_path / "package.json").rename(tmp_path / "pyproject.toml")
    assert context_folder(dockerfile, document).doubt == ""


def test_two_services_with_two_contexts_are_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    compose = "services:\n  a: {build: {context: ., dockerfile: web/Dockerfile}}\n  b: {build: ./web}\n"
    (tmp_path / "compose.yaml").write_text(compose)
    found = context_folder(tmp_path / "web" / "Dockerfile", Document.parse(b"FROM x\n"))
    assert "builds it in" in found.doubt


DOUBTS = [
    ({".dockerignore": ""}, {}, ""),
    ({}, {"apps/api/.dockerignore": ""}, "has a .dockerignore of its own"),
    ({}, {"other/.dockerignore": ""}, "has a .dockerignore of its own"),
    ({".dockerignore": ""}, {"apps/api/.dockerignore": ""}, ""),
]


@pytest.mark.parametrize(("here", "below", "doubt"), DOUBTS)
def test_an_ignore_file_further_down_is_a_doubt(
    tmp_path: Path, here: dict[str, str], below: dict[str, str], doubt: str
) -> None:
    (tmp_path / ".git").mkdir()
    for name, text in {"web/index.html": "", "apps/api/app.py": "", "other/x": "", **here, **below}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = context_folder(tmp_path / "apps" / "api" / "Dockerfile", Document.parse(b"FROM x\nCOPY web /web\n"))
    assert found.folder == tmp_path
    assert (doubt in found.doubt) if doubt else found.doubt == ""


@pytest.mark.parametrize(
    ("above", "doubt"),
    [
        ("package-lock.json", "package-lock.json lies in"),
        ("yarn.lock", "yarn.lock lies in"),
        ("pnpm-lock.yaml", "pnpm-lock.yaml lies in"),
        ("poetry.lock", ""),
        ("README.md", ""),
    ],
)
def test_a_lock_file_above_is_a_doubt(tmp_path: Path, above: str, doubt: str) -> None:
    for name in (".git", "services/api"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "services" / "api" / "package.json").write_text("{}")
    (tmp_path / above).write_text("")
    dockerfile, document = tmp_path / "services" / "api" / "Dockerfile", Document.parse(b"FROM node\nCOPY . .\n")
    found = context_folder(dockerfile, document).doubt
    assert (doubt in found) if doubt else found == ""
    (dockerfile.parent / "package-lock.json").write_text("{}")
    assert context_folder(dockerfile, document).doubt == ""


def test_a_pipe_is_no_compose_file(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ".devcontainer"):
        folder.mkdir(exist_ok=True)
        os.mkfifo(folder / "compose.yaml")
    assert context_folder(tmp_path / "Dockerfile", Document.parse(b"FROM x\n")).services == ()


def test_neighbours_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def walk(_self: BuildContext, path: str = "") -> Iterator[str]:
        looked.append(path)
        return iter(())

    monkeypatch.setattr(BuildContext, "walk", walk)
    context = BuildContext(tmp_path)
    assert context.neighbours() == context.neighbours() == ()
    assert looked == [""]


def test_an_ignore_file_that_is_a_link_is_there(folder: Path) -> None:
    (folder / ".dockerignore").rename(folder / "real.ignore")
    (folder / ".dockerignore").symlink_to("real.ignore")
    context = BuildContext(folder)
    assert context.ignore_path == ".dockerignore"
    assert context.kind("node_modules") is None
    (folder / ".dockerignore").unlink()
    (folder / ".dockerignore").symlink_to("/etc/passwd")
    assert BuildContext(folder).patterns == ()


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "requirements.txt")
    context = BuildContext(tmp_path)
    assert context.kind("requirements.txt") == "other"
    assert context.read("requirements.txt") is None


def test_a_context_further_up_is_found_by_what_is_copied(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert _context_of(tmp_path / "docker" / "Dockerfile", "FROM x\nCOPY src /x\n") == str(tmp_path)


def test_the_search_ends_at_the_top_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    assert _context_of(tmp_path / "repo" / "Dockerfile", "FROM x\nCOPY src /x\n") == str(tmp_path / "repo")


@pytest.mark.parametrize(
    "compose",
    [
        "services:\n  web:\n    build:\n      context: .\n      dockerfile: docker/web.Dockerfile\n",
        "services:\n  db: {image: x}\n  web: {build: {context: ., dockerfile: ./docker/web.Dockerfile}}\n",
    ],
)
def test_a_compose_file_names_the_context(tmp_path: Path, compose: str) -> None:
    (tmp_path / "compose.yaml").write_text(compose)
    assert _context_of(tmp_path / "docker" / "web.Dockerfile", "FROM x\n") == str(tmp_path)


@pytest.mark.parametrize(
    "compose", ["services: [", "build\n", "services:\n  web: {build: https://x/y}\n", "services: {web: build}\n"]
)
def test_a_compose_file_that_says_nothing_is_passed_over(tmp_path: Path, compose: str) -> None:
    (tmp_path / "compose.yaml").write_text(compose)
    assert _context_of(tmp_path / "Dockerfile", "FROM x\n") == str(tmp_path)


def test_a_compose_build_string_is_a_context(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text("services:\n  web:\n    build: ./web\n")
    assert _context_of(tmp_path / "web" / "Dockerfile", "FROM x\nCOPY x y\n") == str(tmp_path / "web")


def test_unreadable_folders_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", refuse)
    assert BuildContext(tmp_path).kind("a") is None
