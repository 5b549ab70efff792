"""Versions of tools, releases of distributions, and what the tables say of them."""

from __future__ import annotations

import re

import pytest

from optimizer import BuildContext, Document
from optimizer.facts import Facts
from optimizer.facts.distributions import code_names, releases
from optimizer.facts.images import archived, image, living, release_in_tag, release_of
from optimizer.facts.packages import table
from optimizer.facts.supplies import supplies
from optimizer.facts.tools import knows_option, taken_away


def facts_of(text: str) -> Facts:
    return Facts(Document.parse(text.encode()), BuildContext(None))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("FROM debian:jessie", False),
        ("FROM debian:buster", None),
        ("FROM debian:bookworm", True),
        ("FROM ubuntu:14.04", False),
        ("FROM ubuntu:14.04\nRUN pip install --upgrade pip", True),
        ("FROM ubuntu:14.04\nRUN pip install --upgrade pip==1.5.6", False),
        ("FROM ubuntu:14.04\nRUN pip install --upgrade pip==1..6", False),
        ("FROM ubuntu:14.04\nRUN curl -O https://example.org/get-pip.py && python get-pip.py", True),
        ("FROM ubuntu:14.04\nRUN test -f x || pip install -U pip", True),
        ("FROM python:2.7", True),
        ("FROM python:2.7.8", False),
        ("FROM python:2.7.13", None),
        ("FROM python:3.3", None),
        ("FROM python:3.6.5", None),
        ("FROM python:3.12-slim", True),
        ("FROM somebody/something", None),
        ("FROM somebody/something:1.0-ubuntu22.04", True),
        ("FROM somebody/something:python3.11", True),
        ("FROM somebody/something\nRUN dnf install -y python3.11-pip", True),
        ("FROM somebody/something\nRUN pip install --no-cache-dir x", True),
        ("FROM registry.access.redhat.com/ubi9/python-311", True),
    ],
)
def test_which_pip_knows_the_option(before: str, expected: object) -> None:
    facts = facts_of(f"{before}\nRUN pip install flask\n")
    run = facts.document.instructions[-1]
    assert knows_option(facts, run, facts.commands(run)[-1], "pip", "--no-cache-dir").holds is expected


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("alpine:3.1", False),
        ("alpine:3.2", False),
        ("alpine:3.3", True),
        ("alpine", True),
        ("node:4-alpine", True),
        ("python:3.9-alpine3.13", True),
        ("somebody/something", None),
        ("debian:12", None),
    ],
)
def test_which_apk_knows_the_option(base: str, expected: object) -> None:
    facts = facts_of(f"FROM {base}\nRUN apk add curl\n")
    run = facts.document.instructions[-1]
    assert knows_option(facts, run, facts.commands(run)[-1], "apk", "--no-cache").holds is expected


def test_a_tool_that_goes_in_the_same_statement() -> None:
    facts = facts_of("FROM node:20\nRUN if true; then npm ci; apt-get purge -y npm; fi; npm ci; rm -rf x\n")
    run = facts.document.instructions[-1]
    first, second = (command for command in facts.commands(run) if command.name == "npm")
    assert taken_away(facts, run, first) is not None
    assert taken_away(facts, run, second) is None


@pytest.mark.parametrize(
    ("reference", "gone"),
    [
        ("python:3.6", "2026-09"),
        ("node:14", "2025-07"),
        ("debian:buster-slim", "2025-07"),
        ("ubuntu:21.10", "2022-07"),
        ("ubuntu:14.04", None),
        ("centos:7", "2024-07"),
        ("alpine:3.1", None),
        ("debian:12", None),
        ("postgres:16.3", None),
    ],
)
def test_since_when_packages_are_gone(reference: str, gone: str | None) -> None:
    found = image(reference)
    assert found is not None
    assert archived(found) == gone


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("python:3.6", "python:3.7"),
        ("python:2.7", None),
        ("python:3.8.10", "python:3.8.17"),
        ("python:3.9-slim-buster", "python:3.9-slim"),
        ("node:14", "node:18"),
        ("node:16.13.0-slim", "node:18.16-slim"),
        ("debian:buster-slim", "debian:bookworm-slim"),
        ("debian:9", "debian:12"),
        ("ubuntu:21.10", "ubuntu:22.04"),
        ("php:7.2-apache", None),
        ("somebody/something", None),
    ],
)
def test_the_nearest_living_tag(reference: str, expected: str | None) -> None:
    found = living(reference)
    assert found == expected
    assert expected is None or (base := image(expected)) is None or archived(base) is None


def test_the_release_that_any_tag_names() -> None:
    assert release_in_tag("11.8-cudnn8-runtime-ubuntu22.04") == "jammy"
    assert release_in_tag("1.2-bookworm") == "bookworm"
    assert release_in_tag("1.2-debian-11") == "bullseye"
    assert release_in_tag("latest") is None


def test_a_finer_tag_than_the_table_has_is_of_no_known_release() -> None:
    found = image("postgres:16.3")
    assert found is not None
    assert (found.release, release_of(found)) == (None, None)


def test_the_tables_are_whole() -> None:
    for distribution in ("debian", "ubuntu", "alpine", "centos"):
        for release in releases(distribution):
            assert all(re.fullmatch(r"\d{4}-\d\d", month) for month in (release.ends, release.gone) if month is not None)
    assert {"bookworm", "jammy", "sid"} <= code_names()
    known = table("debian")["releases"]
    for supply in supplies():
        assert set(supply.packages) == set(known), supply.name
        for name, packages in supply.packages.items():
            assert set(packages) <= {*table("debian")["full"][name], "tzdata"}, (supply.name, name)
