"""The table of base images, and the command that prints it."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from optimizer.cli import app
from optimizer.facts.images import architectures, image, lifetime, names, table, variant
from optimizer.report.images import render


@pytest.mark.parametrize(
    ("reference", "kind", "expected"),
    [
        ("python:3.12", "slim", "python:3.12-slim"),
        ("python:3.12-bookworm", "slim", "python:3.12-slim-bookworm"),
        ("python", "slim", "python:slim"),
        ("docker.io/library/python:3.12", "slim", "docker.io/library/python:3.12-slim"),
        ("node:22", "slim", "node:22-slim"),
        ("node:22-bookworm", "slim", "node:22-bookworm-slim"),
        ("node:lts", "slim", "node:lts-slim"),
        ("debian:bookworm", "slim", "debian:bookworm-slim"),
        ("debian:12", "slim", "debian:12-slim"),
        ("eclipse-temurin:17-jdk", "jre", "eclipse-temurin:17-jre"),
        ("eclipse-temurin:21-jdk-noble", "jre", "eclipse-temurin:21-jre-noble"),
        ("node:22", "alpine", "node:22-alpine"),
    ],
)
def test_a_variant_has_the_same_version_and_release(reference: str, kind: str, expected: str) -> None:
    assert variant(reference, kind) == (expected, "")


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("golang:1.24", "slim"),
        ("php:8.3-fpm", "slim"),
        ("nginx:1.27", "slim"),
        ("postgres:16", "slim"),
        ("debian", "slim"),
        ("python:3.12@sha256:00", "slim"),
        ("python:3.12-windowsservercore", "slim"),
        ("registry.example/python:3.12", "slim"),
        ("python:3.12-alpine", "slim"),
        ("python:1.5", "slim"),
        ("unheard-of:1", "slim"),
    ],
)
def test_a_variant_that_is_not_known_to_exist_has_a_reason(reference: str, kind: str) -> None:
    found, reason = variant(reference, kind)
    assert not found
    assert reason


def test_both_variants_are_on_the_same_release() -> None:
    for reference in ("python:3.12", "python:3.12.4", "python:3.11-bullseye", "node:22", "node:26", "ruby:3.3", "rust:1.85"):
        full, slim = image(reference), image(variant(reference, "slim")[0])
        assert full is not None
        assert slim is not None
        assert (full.kind, slim.kind) == ("full", "slim")
        assert full.release == slim.release is not None
        assert dict(full.env) == dict(slim.env)


def test_a_distroless_image_has_no_shell_and_two_users() -> None:
    root, nonroot = image("gcr.io/distroless/static"), image("gcr.io/distroless/static-debian13:nonroot")
    assert root is not None
    assert nonroot is not None
    assert (root.has_shell, root.user, nonroot.user, nonroot.release) == (False, "", "65532", None)


def test_every_entry_says_where_it_is_from_and_when() -> None:
    for name in names():
        entry = table()[name]
        assert entry.get("source"), name
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", str(entry.get("date"))), name
        assert entry["distribution"] in table()["distributions"], name


def test_what_is_known_has_a_page_for_every_image() -> None:
    for name in names():
        text = render(name)
        assert text is not None
        assert text.startswith(f"{name}  table of 20"), text
    assert render("unheard-of") is None


def test_the_page_names_release_user_variants_and_end() -> None:
    result = CliRunner().invoke(app, ["images", "node:22"])
    assert result.exit_code == 0
    for words in ("debian bookworm, glibc 2.36", "node (1000)", "node:22-slim", "end of life", '["docker-entrypoint.sh"]'):
        assert words in result.stdout
    node = image("node:22")
    assert node is not None
    assert str(lifetime(node)) in result.stdout
    assert "amd64" in (architectures("node", "slim") or ())


def test_a_name_that_is_not_known_gets_a_suggestion() -> None:
    result = CliRunner().invoke(app, ["images", "pyton:3"])
    assert result.exit_code == 2
    assert 'Did you mean "python"?' in result.output
