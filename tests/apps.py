"""The bundled applications, built and asked before and after, with a Docker daemon: `python -m tests.apps` prints the table."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.batch import fix_file, write

APPS = Path(__file__).parent.parent / "fixtures" / "apps"
EXPERT = "expert.Dockerfile"
VERSIONS = ("before", "safe", "unsafe", "expert")
ENVIRONMENT = {**os.environ, "DOCKER_BUILDKIT": "1"}
_STEP = re.compile(r"^#(\d+) \[(?!internal)[^\]]*\] (?!FROM)(.*)$", re.MULTILINE)
_CACHED = re.compile(r"^#(\d+) CACHED", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One application as one Dockerfile builds it; `steps` run again of `total` after one edit of its source."""

    app: str
    built: bool
    answers: bool
    megabytes: float
    steps: int
    total: int
    note: str

    def __str__(self) -> str:
        return f"{self.built!s:6} {self.answers!s:8} {self.megabytes:7.1f} MB  {self.steps} of {self.total} steps  {self.note}"


def names() -> list[str]:
    return sorted(path.parent.name for path in APPS.glob("*/app.toml"))


def spec(app: str) -> dict[str, Any]:
    """How to ask an application, and which source to edit."""
    return tomllib.loads((APPS / app / "app.toml").read_text())


def lay_out(app: str, folder: Path) -> None:
    """Copy an application to `folder`, without what is ours: how to ask it, and the expert's Dockerfile."""
    shutil.copytree(APPS / app, folder, ignore=shutil.ignore_patterns("app.toml", EXPERT))


def why_no_daemon() -> str | None:
    """Why Docker cannot be used here, or None."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    done = docker("version", "-f", "{{.Server.Version}}", timeout=20)
    return None if done.returncode == 0 else f"no Docker daemon answers: {done.stderr.strip().splitlines()[-1:]}"


def docker(*args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False)


def missing_base(app: str) -> str | None:
    """The first base image of `app` that is not here, or None."""
    text = (APPS / app / "Dockerfile").read_text()
    bases = re.findall(r"^FROM\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return next((base for base in bases if docker("image", "inspect", base).returncode), None)


def build_and_ask(app: str, version: str) -> Row:
    """Build, run and ask `app`, and rebuild it after an edit to its source.

    `version` is one of VERSIONS: as it is, after `fix -w`, after `fix -w --unsafe`, or by the Dockerfile of an expert, which
    the tool never sees.
    """
    with tempfile.TemporaryDirectory(prefix=f"dockeropt-{app}-") as work:
        folder = Path(work) / app
        lay_out(app, folder)
        if version in ("safe", "unsafe"):
            result = fix_file(folder / "Dockerfile", {"unsafe": version == "unsafe"})
            assert not result.is_failed, result
            write(result)
        elif version == "expert":
            shutil.copy(APPS / app / EXPERT, folder / "Dockerfile")
        tag = f"dockeropt-test-{app}-{version}"
        try:
            return _measure(app, folder, tag, spec(app))
        finally:
            docker("rm", "-f", tag)
            docker("rmi", "-f", tag)


def _measure(app: str, folder: Path, tag: str, asked: dict[str, Any]) -> Row:
    done = build(folder, tag)
    if done.returncode:
        return Row(app, built=False, answers=False, megabytes=0, steps=0, total=0, note=done.stderr[-400:])
    size = json.loads(docker("image", "inspect", tag).stdout)[0]["Size"] / 1e6
    docker("rm", "-f", tag)
    docker("run", "-d", "--network=host", "--name", tag, tag)
    said = _ask(f"http://127.0.0.1:{asked['port']}{asked['path']}", asked["expect"])
    logs = "" if said is None else (docker("logs", "--tail", "5", tag).stderr + said)[-300:]
    docker("rm", "-f", tag)
    edited = folder / asked["edit"]
    blanks = "".join(random.choice(("\n", " \n")) for _ in range(40))  # noqa: S311 - new each time: the cache goes by content
    edited.write_text(edited.read_text() + blanks)
    again = build(folder, tag)
    steps = {match[1] for match in _STEP.finditer(again.stderr + again.stdout)}
    cached = {match[1] for match in _CACHED.finditer(again.stderr + again.stdout)}
    return Row(app, built=True, answers=said is None, megabytes=size, steps=len(steps - cached), total=len(steps), note=logs)


def build(folder: Path, tag: str) -> subprocess.CompletedProcess[str]:
    return docker("build", "--network=host", "--progress=plain", "-t", tag, str(folder))


def _ask(address: str, expected: str) -> str | None:
    """None when the application answers with `expected` within 20 seconds, else what came."""
    last = ""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=3) as answer:  # noqa: S310 - our own address
                last = answer.read().decode(errors="replace")
            if expected in last:
                return None
        except (urllib.error.URLError, OSError) as error:
            last = str(error)
        time.sleep(0.3)
    return last[:200]


def ratio(rows: dict[tuple[str, str], Row], version: str, other: str) -> float:
    """Geometric mean over the applications of the size of one version by that of another."""
    names_ = {name for name, _ in rows}
    return math.prod(rows[name, version].megabytes / rows[name, other].megabytes for name in names_) ** (1 / len(names_))


def _table(wanted: list[str]) -> None:
    rows: dict[tuple[str, str], Row] = {}
    for name in wanted:
        for version in VERSIONS:
            rows[name, version] = build_and_ask(name, version)
            print(f"{name:20} {version:7} {rows[name, version]}", flush=True)
    for version in ("safe", "unsafe"):
        for other in ("before", "expert"):
            print(f"size {version} / {other}: {ratio(rows, version, other):.3f} (geometric mean)")


if __name__ == "__main__":
    if reason := why_no_daemon():
        sys.exit(reason)
    _table(sys.argv[1:] or names())
