"""What speaks against a rewrite whichever transform made it, a plug-in too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from optimizer import BuildContext, Document, Settings, optimize
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.compose import services
from optimizer.rewrite import Aspect, Change, FileChange, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts import Facts
    from optimizer.rewrite import Refusal


class Append:
    """A transform that puts a RUN behind the last instruction, once."""

    def __init__(self, command: str, *, changes_files: FileChange | None = None, only_proven: bool = False) -> None:
        files = frozenset({changes_files} if changes_files is not None else ())
        self.meta = Meta("append", Phase.LAYERS, frozenset({Aspect.COMMANDS}), (), "a", "b", "c", files)
        self.command, self.only_proven = command, only_proven

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        if self.command in document.source.text:
            return
        end = len(document.source.text)
        yield Rewrite(
            self,
            summary="appends",
            safety=Safety.UNSAFE,
            edits=(Edit(Span(end, end), f"RUN {self.command}\n"),),
            evidence=(facts.seen(document.instructions[0], "is first"),),
            changes=(Change(Aspect.COMMANDS, added=(self.command,)),),
            only_proven=self.only_proven,
        )


def reasons(text: str, transform: Append, context: BuildContext | None = None) -> list[str]:
    """Why a rewrite was refused; none where it was made."""
    context = BuildContext(None) if context is None else context
    outcome = optimize(Document.parse(text.encode()), context, Settings(unsafe=True), [transform])
    assert bool(outcome.applied) is not bool(outcome.refused)
    return [refusal.reason for refusal in outcome.refused]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("FROM debian:buster\n", "apt-get install -y curl"),
        ("FROM node:14\n", "apt-get update"),
        ("FROM python:3.6-slim\n", "apt-get install -y curl"),
        ("FROM centos:7\n", "yum install -y curl"),
        ("FROM debian:12 AS build\nFROM debian:9\n", "apt-get install -y curl"),
    ],
)
def test_nothing_new_is_installed_from_a_dead_release(text: str, command: str) -> None:
    assert "gone from the servers" in reasons(text, Append(command))[0]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("FROM debian:12\n", "apt-get install -y curl"),
        ("FROM debian:buster\n", "echo done"),
        ("FROM alpine:3.1\n", "apk add curl"),
        ("FROM debian:buster\nRUN sed -i s/deb.debian.org/archive.debian.org/ /etc/apt/sources.list\n", "apt-get update"),
        ("FROM somebody/something\n", "apt-get update"),
        ("FROM debian:buster AS old\nRUN echo\nFROM debian:12\n", "apt-get update"),
    ],
)
def test_what_is_still_served_may_be_installed(text: str, command: str) -> None:
    assert reasons(text, Append(command)) == []


SLIMS = Append("echo appended", changes_files=FileChange.PACKAGES)


@pytest.mark.parametrize(
    "end",
    [
        'CMD ["tail", "-f", "/dev/null"]',
        "CMD tail -F /dev/null",
        "CMD sleep infinity",
        'CMD ["sleep", "inf"]',
        "CMD sleep 365d",
        'ENTRYPOINT ["/bin/sh", "-c", "while true; do sleep 1000; done"]',
        "CMD while :; do sleep 60; done",
        'CMD ["python3", "-c", "import time\\nwhile True: time.sleep(60)"]',
        'CMD ["node", "-e", "setInterval(() => {}, 1000)"]',
        'CMD ["bash"]',
        "CMD /bin/bash -l",
        'CMD ["jupyter", "lab"]',
        'CMD ["python", "-m", "notebook"]',
        'ENTRYPOINT ["tini", "--", "sleep", "infinity"]',
        'CMD ["/usr/sbin/sshd", "-D"]',
    ],
)
def test_an_image_to_work_in_is_not_slimmed(end: str) -> None:
    (reason,) = reasons(f"FROM python:3.12\n{end}\n", SLIMS)
    assert "stands in no file" in reason


@pytest.mark.parametrize(
    "end",
    [
        "",
        'CMD ["python", "app.py"]',
        "CMD service nginx start && tail -f /dev/null",
        "CMD sleep 5 && python app.py",
        "CMD while true; do python job.py; sleep 60; done",
        'CMD ["bash", "start.sh"]',
        'CMD ["tail", "-f", "/var/log/app.log"]',
    ],
)
def test_an_image_that_does_something_may_be(end: str) -> None:
    assert reasons(f"FROM python:3.12\n{end}\n", SLIMS) == []


@pytest.mark.parametrize("blanks", [" " * 20_000, "\\n" * 5_000])
def test_a_long_program_is_not_one_that_waits(blanks: str) -> None:
    assert reasons(f'FROM python:3.12\nCMD ["python3", "-c", "while True{blanks}x"]\n', SLIMS) == []


def test_what_takes_nothing_away_is_not_asked() -> None:
    assert reasons('FROM python:3.12\nCMD ["bash"]\n', Append("true")) == []


def with_services(text: str) -> BuildContext:
    return BuildContext(None, services=services(text.encode(), "compose.yaml"))


TWO = 'FROM python:3.12 AS base\nWORKDIR /app\nFROM base AS dev\nFROM base\nCMD ["python", "a.py"]\n'


@pytest.mark.parametrize(
    ("compose", "words"),
    [
        ("services: {web: {build: ., volumes: ['.:/app']}}", "mounts the sources"),
        ("services: {web: {build: {context: ., target: dev}}}", "starts the stage dev"),
        ("services: {web: {build: ., command: sleep infinity}}", "only waits"),
    ],
)
def test_what_compose_makes_of_an_image(compose: str, words: str) -> None:
    text = TWO if "dev" in compose else 'FROM python:3.12\nWORKDIR /app\nCMD ["python", "a.py"]\n'
    if "sleep" in compose:
        text = "FROM python:3.12\n"
    assert words in reasons(text, SLIMS, with_services(compose))[0]


def test_the_mounts_of_another_stage_are_not_of_this_one() -> None:
    apart = TWO.replace("FROM base AS dev", "FROM node:22 AS dev\nWORKDIR /app")
    compose = "services: {web: {build: {context: ., target: dev}, volumes: ['.:/app']}}"
    assert reasons(apart, SLIMS, with_services(compose)) == []


def test_what_only_proof_settles_is_not_unsafe_alone() -> None:
    document = Document.parse(b"FROM debian:12\n")
    transform = Append("true", only_proven=True)
    settings = Settings(unsafe=True)
    held = optimize(document, BuildContext(None), settings, [transform])
    assert [rewrite.summary for rewrite in held.held_back] == ["appends"]
    assert optimize(document, BuildContext(None), replace(settings, proof=True), [transform]).applied
