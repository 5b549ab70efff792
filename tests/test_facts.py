"""Facts: the state at an instruction, base images, and what an edit re-runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer import Settings, optimize
from optimizer.dockerfile.document import Document
from optimizer.facts import Facts
from optimizer.facts.context import BuildContext
from optimizer.facts.images import image, is_windows, split
from optimizer.facts.state import expand

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"app.py": "x", "lib/a.py": "x", "requirements.txt": "x", "tests/test_a.py": "x", "server.js": "x"}


def facts(text: str, target: str | None = None) -> Facts:
    return Facts(Document.parse(text.encode()), BuildContext(None, files=FILES), target)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("$A/${B}", "1/2"),
        ("${E:-d}", "d"),
        ("${A:-d}", "1"),
        ("$C", None),
        ("${A:+x}", None),
        ("'$A'", "$A"),
        ('"$A b"', "1 b"),
        ("\\$A", "$A"),
        ('"a\\b"', "a\\b"),
        ("$U", None),
        ("${A", None),
    ],
)
def test_variables_expand_as_in_buildkit(text: str, expected: str | None) -> None:
    assert expand(text, {"A": "1", "B": "2", "E": "", "U": None}) == expected


def test_the_state_before_each_instruction() -> None:
    found = facts(
        "ARG TAG=3.12\nFROM python:$TAG AS base\nWORKDIR /a\nARG TAG X=1\nENV P=/p Q=$X\nUSER u\n"
        'SHELL ["/bin/bash", "-ec"]\nWORKDIR b\nWORKDIR $P\nRUN x\nFROM base\nRUN y\nFROM unknown/image\nWORKDIR rel\nRUN z\n'
    )
    runs = [i for i in found.document.instructions if i.keyword == "RUN"]
    run, child, other = runs
    state = found.state(run)
    assert (state.workdir, state.user, state.env["Q"], state.args["TAG"]) == ("/p", "u", "1", "3.12")
    assert state.has_errexit
    assert state.is_posix_shell
    assert found.state(child).workdir == "/p"
    assert found.state(child).args == {}
    assert found.state(other).workdir is None
    assert found.reference(found.document.stages[1]) == "python:3.12"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("python", ("python", "debian", "trixie", True)),
        ("python:3.12-slim-bookworm", ("python", "debian", "bookworm", True)),
        ("docker.io/library/node:22-slim", ("node", "debian", "bookworm", False)),
        ("node:22@sha256:abc", ("node", "debian", "bookworm", True)),
        ("golang:1.22-alpine", ("golang", "alpine", None, True)),
        ("debian:12.5", ("debian", "debian", "bookworm", False)),
        ("debian:stable-slim", ("debian", "debian", "trixie", False)),
        ("debian:11-slim", ("debian", "debian", "bullseye", False)),
        ("debian:6", ("debian", "debian", None, False)),
        ("node:14", ("node", "debian", "buster", True)),
        ("node:lts-slim", ("node", "debian", None, False)),
        ("golang:1.9", ("golang", "debian", "stretch", True)),
        ("golang:1", ("golang", "debian", "trixie", True)),
        ("python:3.8.19-slim", ("python", "debian", "bookworm", True)),
        ("alpine:3.20", ("alpine", "alpine", None, False)),
        ("ubuntu:24.04", ("ubuntu", "ubuntu", "noble", False)),
    ],
)
def test_what_is_known_of_an_image(reference: str, expected: tuple[str, str, str | None, bool]) -> None:
    found = image(reference)
    assert found is not None
    assert (found.name, found.distribution, found.release, found.has_certificates) == expected


@pytest.mark.parametrize(
    "reference", ["quay.io/x/python", "python/custom", "localhost:5000/python", "packages", "nothing-known"]
)
def test_images_of_somebody_else_are_unknown(reference: str) -> None:
    assert image(reference) is None


def test_references_are_split_at_the_tag() -> None:
    assert split("a:1") == ("a", "1")
    assert split("localhost:5000/a") == ("localhost:5000/a", "latest")
    assert split("a:1@sha256:b") == ("a", "1")
    assert is_windows("mcr.microsoft.com/windows/nanoserver:ltsc2022")
    assert not is_windows("debian")


def test_full_images_have_what_buildpack_deps_has() -> None:
    full, slim, go = image("python:3.12"), image("python:3.12-slim"), image("golang:1.22")
    assert full is not None
    assert slim is not None
    assert go is not None
    assert {"git", "curl", "gcc"} <= full.packages
    assert "ca-certificates" in slim.packages
    assert not slim.packages & {"curl", "gcc", "git"}
    assert "git" in go.packages
    assert "gcc" not in go.packages
    assert full.has_libraries
    assert not go.has_libraries


@pytest.mark.parametrize(
    ("text", "steps", "total"),
    [
        ("FROM python\nCOPY . .\nRUN a\n", 2, 2),
        ("FROM python\nCOPY requirements.txt .\nRUN a\nCOPY app.py .\n", 1, 3),
        ("FROM python\nCOPY lib lib\nRUN a\nENV A=1\n", 0, 2),
        ("FROM python AS a\nCOPY . .\nFROM python\nCOPY --from=a /x /x\nRUN b\n", 3, 3),
        ("FROM python AS a\nCOPY . .\nFROM python\nRUN b\n", 0, 1),
        ("FROM python AS a\nCOPY . .\nFROM a\nRUN b\n", 2, 2),
        ("FROM python\nRUN --mount=type=bind,target=/x a\nRUN b\n", 2, 2),
        ("FROM python\nRUN --mount=type=bind,source=lib,target=/x a\n", 0, 1),
        ("FROM python\nRUN --mount=type=cache,target=/x a\n", 0, 1),
        ("FROM python AS a\nCOPY . .\nFROM python\nRUN --mount=type=bind,from=a,target=/x b\n", 2, 2),
        ("FROM python\nCOPY *.py ./\nRUN a\n", 2, 2),
        ("FROM python\nCOPY $X .\nRUN a\n", 2, 2),
        ("FROM python\nCOPY gone .\nRUN a\n", 0, 2),
    ],
)
def test_what_an_edit_to_the_application_re_runs(text: str, steps: int, total: int) -> None:
    found = facts(text).cache.rerun("app.py")
    assert (found.steps, found.total) == (steps, total)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ('FROM python\nWORKDIR /w\nCOPY . .\nCMD ["python", "lib/a.py"]\n', "lib/a.py"),
        ("FROM python\nCOPY . .\n", "app.py"),
        ("FROM python\nCOPY lib lib\n", "lib/a.py"),
        ("FROM python\nCOPY requirements.txt .\n", None),
        ("FROM node\nCOPY server.js /\nCMD node /server.js\n", "server.js"),
    ],
)
def test_which_file_a_developer_edits(text: str, file: str | None) -> None:
    assert facts(text).cache.entry_file() == file


def test_the_target_says_what_is_built_and_shipped() -> None:
    text = "FROM a AS one\nRUN x\nFROM b AS two\nCOPY --from=one /x /x\nFROM two AS three\nFROM c\n"
    assert [s.index for s in facts(text).built] == [3]
    assert [s.index for s in facts(text, "three").built] == [0, 1, 2]
    assert [s.index for s in facts(text, "three").shipped] == [2, 1]


def test_heredoc_scripts_are_read_where_the_shell_runs_them() -> None:
    found = facts(
        "FROM python\nRUN <<EOF\na\nb\nEOF\nRUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF\nRUN cat <<EOF > x && c\nd\nEOF\n"
        'RUN ["e", "f"]\nSHELL ["powershell", "-Command"]\nRUN g\n'
    )
    scripts = [found.script(run) for run in found.document.instructions if run.keyword == "RUN"]
    names = [None if script is None else [c.name for c in script.commands] for script in scripts]
    assert names == [["a", "b"], None, ["cat", "c"], ["e"], None]


ODD_LOCKS = [
    ("package-lock.json", '{"packages": {"": {}, "node_modules/a": {"dependencies": ["b"], "optionalDependencies": 7}}}'),
    ("package-lock.json", '{"packages": {"": {}, "node_modules/a": {"dependencies": {"b": {}}}, "node_modules/b": []}}'),
    ("uv.lock", 'package = ["a"]\n'),
    ("uv.lock", "package = 7\n"),
    ("uv.lock", "[[package]]\nname = 7\nversion = []\nmarkers = 3\nwheels = [1]\n"),
    ("Pipfile.lock", '{"default": {"a": {"markers": 7, "version": 3}, "b": []}}'),
]


@pytest.mark.parametrize(("name", "text"), ODD_LOCKS)
def test_a_lock_file_of_another_shape_tells_nothing(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "app.py").write_text("")
    install = {"package-lock.json": "npm install", "uv.lock": "uv sync", "Pipfile.lock": "pipenv install"}[name]
    base = "node:22" if name.startswith("package") else "python:3.12"
    document = Document.parse(f'FROM {base}\nWORKDIR /app\nCOPY . .\nRUN {install}\nCMD ["python", "app.py"]\n'.encode())
    outcome = optimize(document, BuildContext(tmp_path, "Dockerfile"), Settings())
    assert ("use-npm-ci" if base == "node:22" else "use-slim-base") not in {rewrite.name for rewrite in outcome.applied}
