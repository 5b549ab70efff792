"""Packages and known vulnerabilities of an image, counted by a scanner that is on PATH: grype, trivy, docker scout or syft."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optimizer.verify.commands import BuilderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from optimizer.verify.commands import Commands
    from optimizer.verify.session import Session

SCANNERS = ("grype", "trivy", "syft")
SCOUT = "docker scout"  # a plug-in of docker, not a program on PATH


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scanner counted: packages, and vulnerabilities by severity; None for what it does not look at."""

    scanner: str
    packages: int | None
    vulnerabilities: dict[str, int] | None = field(default=None)


def scan(session: Session, tag: str) -> Scan | None:
    """What the scanners on PATH say of an image; None where there is none. Raises BuilderError where one fails."""
    session.on_progress(f"scanning {tag}")
    path = session.commands.environment.get("PATH")
    found = [name for name in SCANNERS if shutil.which(name, path=path)]
    if session.builder.runs_with == "docker" and session.builder.run("scout", "version").code == 0:
        found.append(SCOUT)
    scans = [_READERS[name](session.commands, session.builder.runs_with, tag) for name in found]
    if not scans:
        return None
    packages = next((s.packages for s in scans if s.packages is not None), None)
    counted = next((s.vulnerabilities for s in scans if s.vulnerabilities is not None), None)
    return Scan(", ".join(found), packages, counted)


def _output(commands: Commands, *words: str) -> dict[str, Any]:
    done = commands.ask(*words, timeout=commands.patience.scan)
    if done.code:
        raise BuilderError(f"{words[0]} failed: {done.last_line}")
    try:
        found = json.loads(done.out)
    except json.JSONDecodeError as error:
        raise BuilderError(f"{words[0]}: expected JSON, found {done.out[:60]!r}") from error
    return found if isinstance(found, dict) else {}


def _level(found: dict[str, Any], key: str) -> str:
    return f"{found.get(key) or 'unknown'}".lower()


def _syft(commands: Commands, program: str, tag: str) -> Scan:
    found = _output(commands, "syft", "scan", f"{program}:{tag}", "-o", "json", "-q")
    return Scan("syft", len(found.get("artifacts") or ()))


def _grype(commands: Commands, program: str, tag: str) -> Scan:
    found = _output(commands, "grype", f"{program}:{tag}", "-o", "json", "-q")
    levels = Counter(_level(match.get("vulnerability") or {}, "severity") for match in found.get("matches") or ())
    return Scan("grype", None, dict(levels))


def _trivy(commands: Commands, program: str, tag: str) -> Scan:  # noqa: ARG001 - it finds the daemon itself
    found = _output(commands, "trivy", "image", "--quiet", "--format", "json", "--list-all-pkgs", tag)
    results = found.get("Results") or ()
    levels = Counter(_level(v, "Severity") for r in results for v in r.get("Vulnerabilities") or ())
    return Scan("trivy", sum(len(r.get("Packages") or ()) for r in results), dict(levels))


def _scout(commands: Commands, program: str, tag: str) -> Scan:
    found = _output(commands, program, "scout", "cves", "--format", "sarif", f"local://{tag}")
    rules = [
        rule.get("properties") or {} for run in found.get("runs") or () for rule in run["tool"]["driver"].get("rules") or ()
    ]
    levels = Counter(_level(rule, "cvssV3_severity") for rule in rules)
    return Scan(SCOUT, None, dict(levels))


_READERS: dict[str, Callable[[Commands, str, str], Scan]] = {"grype": _grype, "trivy": _trivy, "syft": _syft, SCOUT: _scout}
