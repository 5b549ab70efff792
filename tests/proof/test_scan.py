"""Scanners on PATH: what they count, and that one that fails is said rather than counted as nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from optimizer.settings import Verify
from optimizer.verify.commands import BuilderError
from optimizer.verify.scan import SCANNERS, Scan, scan
from optimizer.verify.session import Session

if TYPE_CHECKING:
    from tests.proof.fake import Fake

SYFT = {"artifacts": [{"name": "a"}, {"name": "b"}]}
GRYPE = {
    "matches": [{"vulnerability": {"id": f"CVE-{n}", "severity": level}} for n, level in enumerate(("High", "Low", "High"))]
}
TRIVY = {
    "Results": [
        {"Packages": [{}, {}, {}], "Vulnerabilities": [{"Severity": "CRITICAL"}]},
        {"Packages": None, "Vulnerabilities": None},
        {"Target": "x"},
    ]
}


@pytest.fixture
def session(fake: Fake) -> Session:
    assert fake.calls == []
    return Session(Verify(scan=True), lambda _: None, fake.commands())


def install(fake: Fake, program: str, found: object) -> None:
    fake.install(program)
    fake.reply(program=program, out=json.dumps(found))


def scanned(fake: Fake) -> list[str]:
    return [" ".join(call) for call in fake.calls if call[0] in SCANNERS]


def test_without_a_scanner_nothing_is_counted(fake: Fake, session: Session) -> None:
    fake.reply("scout", code=1, err="docker: 'scout' is not a docker command")
    assert scan(session, "x:1") is None


@pytest.mark.parametrize(
    ("program", "found", "counted", "words"),
    [
        ("syft", SYFT, Scan("syft", 2), "scan docker:x:1 -o json"),
        ("syft", {"artifacts": None}, Scan("syft", 0), "scan"),
        ("syft", [], Scan("syft", 0), "scan"),
        ("grype", GRYPE, Scan("grype", None, {"high": 2, "low": 1}), "docker:x:1 -o json"),
        ("grype", {"matches": []}, Scan("grype", None, {}), "docker:x:1"),
        ("trivy", TRIVY, Scan("trivy", 3, {"critical": 1}), "image --quiet --format json --list-all-pkgs x:1"),
        ("trivy", {}, Scan("trivy", 0, {}), "x:1"),
    ],
)
def test_what_a_scanner_counts(fake: Fake, session: Session, program: str, found: object, counted: Scan, words: str) -> None:
    install(fake, program, found)
    assert scan(session, "x:1") == counted
    assert len(scanned(fake)) == 1
    assert words in scanned(fake)[0]


def test_several_scanners_complete_one_another(fake: Fake, session: Session) -> None:
    install(fake, "syft", SYFT)
    install(fake, "grype", GRYPE)
    assert scan(session, "x:1") == Scan("grype, syft", 2, {"high": 2, "low": 1})


def test_nothing_found_is_not_the_same_as_not_looked_at(fake: Fake, session: Session) -> None:
    install(fake, "grype", {"matches": []})
    install(fake, "trivy", {"Results": [{"Packages": [{}], "Vulnerabilities": [{"Severity": "LOW"}]}]})
    assert scan(session, "x:1") == Scan("grype, trivy", 1, {})


def test_a_scanner_that_fails_is_one_line(fake: Fake, session: Session) -> None:
    fake.install("grype")
    fake.reply(program="grype", code=1, err="ERROR no database")
    with pytest.raises(BuilderError, match=r"^grype failed: ERROR no database$"):
        scan(session, "x:1")


def test_a_scanner_that_writes_no_json_is_one_line(fake: Fake, session: Session) -> None:
    fake.install("trivy")
    fake.reply(program="trivy", out="a new version is there")
    with pytest.raises(BuilderError, match="trivy"):
        scan(session, "x:1")


def test_a_match_without_a_severity_is_unknown(fake: Fake, session: Session) -> None:
    install(fake, "grype", {"matches": [{"vulnerability": {"id": "CVE-1"}}]})
    found = scan(session, "x:1")
    assert found is not None
    assert found.vulnerabilities == {"unknown": 1}


def test_the_image_of_podman_is_asked_of_podman(fake: Fake) -> None:
    fake.install("podman")
    install(fake, "syft", SYFT)
    scan(Session(Verify(builder="podman"), lambda _: None, fake.commands()), "x:1")
    assert "podman:x:1" in scanned(fake)[0]


SCOUT = {
    "runs": [
        {"tool": {"driver": {"rules": [{"properties": {"cvssV3_severity": "HIGH"}}, {"properties": {}}, {"id": "CVE-1"}]}}},
        {"tool": {"driver": {"rules": None}}},
    ]
}


def test_docker_scout_is_asked_where_docker_has_it(fake: Fake, session: Session) -> None:
    fake.reply("scout", "version", out="version: v1.14.0")
    fake.reply("scout", "cves", out=json.dumps(SCOUT))
    assert scan(session, "x:1") == Scan("docker scout", None, {"high": 1, "unknown": 2})
    assert fake.called("scout", "cves")[0][-1] == "local://x:1"


def test_docker_scout_is_not_asked_of_podman(fake: Fake) -> None:
    fake.install("podman")
    fake.reply("scout", "version", out="version: v1.14.0")
    assert scan(Session(Verify(builder="podman"), lambda _: None, fake.commands()), "x:1") is None
    assert not fake.called("scout")
