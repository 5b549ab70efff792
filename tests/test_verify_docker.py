"""With a Docker daemon: applications are proven, wrong rewrites are caught, named and dropped, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from optimizer.batch import fix_file
from optimizer.facts import Facts
from tests import apps
from tests.wrong import WRONG, plug_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer.facts.cache import Rerun

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parent.parent
LABEL = "label=dockeropt.verify"


@pytest.fixture(scope="module", autouse=True)
def _daemon() -> None:
    if reason := apps.why_no_daemon():
        pytest.skip(reason)


def dockeropt(*args: str, plugged: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder) for folder in (plugged, ROOT) if folder is not None)
    environment = {**os.environ, "PYTHONPATH": path}
    words = [sys.executable, "-P", "-m", "optimizer", *args]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=900, **options)


def left_over() -> list[str]:
    """The containers and images that carry our label."""
    containers = apps.docker("ps", "-aq", "--filter", LABEL).stdout.split()
    return containers + apps.docker("images", "-q", "--filter", LABEL).stdout.split()


def lay_out(app: str, folder: Path) -> Path:
    """A copy of an application; skips where its base is not here."""
    if base := apps.missing_base(app):
        pytest.skip(f"the image {base} is not here")
    apps.lay_out(app, folder / app)
    return folder / app


def _by_model(folder: Path, edit: str) -> tuple[Rerun, Rerun]:
    """What an edit re-runs before and after, by the cache model."""
    result = fix_file(folder / "Dockerfile", {"unsafe": True})
    assert result.outcome is not None
    assert result.context is not None
    after = result.context.with_files({file.path: file.text for file in result.outcome.files})
    before = Facts(result.outcome.before, result.context)
    return before.cache.rerun(edit), Facts(result.outcome.after, after).cache.rerun(edit)


@pytest.mark.parametrize("app", apps.names())
def test_an_application_is_proven(app: str, tmp_path: Path) -> None:
    folder = lay_out(app, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = dockeropt("verify", "--format", "json", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (proof,) = json.loads(done.stdout)["proofs"]
    assert proof["verdict"] == "proven"
    assert [d for d in proof["differences"] if d["by"] is None] == []
    original, rewritten = proof["behaviour"]
    assert original["answers"] == rewritten["answers"]
    assert original["answers"][0]["status"] == 200
    assert proof["after"]["size"] < proof["before"]["size"]
    assert proof["edited"] == apps.spec(app)["edit"]
    for model, measured in zip(_by_model(folder, proof["edited"]), (proof["before"], proof["after"]), strict=True):
        assert model.total == measured["total"]
        # a COPY from a stage that ran again is in the cache where it comes out the same: blank lines change no compiled file
        assert model.steps >= measured["steps"]
    assert _by_model(folder, proof["edited"])[0].steps == proof["before"]["steps"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert left_over() == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rewrite_is_caught_named_and_dropped(name: str, tmp_path: Path) -> None:
    folder = lay_out("notes-sqlite", tmp_path)
    if name == "mixes-releases" and apps.docker("image", "inspect", "debian:trixie").returncode:
        pytest.skip("the image debian:trixie is not here")
    plug_in(tmp_path / "plugged", name)
    done = dockeropt("fix", "-w", "--verify", str(folder), plugged=tmp_path / "plugged")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"left out      {name}: {name}" in done.stderr
    assert done.stderr.count("left out ") == 1, done.stderr
    text = (folder / "Dockerfile").read_text()
    assert f"# {name}" not in text
    assert "FROM python:3.11-slim" in text  # the others are applied
    assert "USER 10001:10001" in text
    assert left_over() == []


def test_two_wrong_rewrites_are_both_dropped(tmp_path: Path) -> None:
    folder = lay_out("notes-sqlite", tmp_path)
    plug_in(tmp_path / "plugged", "drops-a-package", "moves-the-port")
    done = dockeropt("fix", "-w", "--verify", str(folder), plugged=tmp_path / "plugged")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("left out ") == 2
    assert "FROM python:3.11-slim" in (folder / "Dockerfile").read_text()


def test_an_original_that_does_not_build_proves_nothing(tmp_path: Path) -> None:
    folder = lay_out("notes-sqlite", tmp_path)
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("chmod +x", "chmod +x no-such-file"))
    text = dockerfile.read_text()
    done = dockeropt("fix", "-w", "--verify", str(folder))
    assert done.returncode == 2
    assert "not comparable: the original does not build" in done.stderr
    assert "no-such-file" in done.stderr
    assert dockerfile.read_text() == text


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_nothing(sign: signal.Signals, tmp_path: Path) -> None:
    folder = lay_out("notes-sqlite", tmp_path)
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("RUN chmod", "RUN sleep 4 && chmod"))
    text = dockerfile.read_text()
    words = [sys.executable, "-P", "-m", "optimizer", "fix", "-w", "--verify", str(folder)]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not apps.docker("ps", "-q", "--filter", LABEL).stdout.strip():  # the original runs, the other one is being built
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(sign)
    process.wait(60)
    while left_over() and time.monotonic() < end:  # a killed run is cleared up by the process that watched it
        time.sleep(0.3)
    assert left_over() == []
    assert dockerfile.read_text() == text


def test_the_next_run_clears_what_a_crash_left(tmp_path: Path) -> None:
    folder = lay_out("notes-sqlite", tmp_path)
    label = f"dockeropt.verify={os.uname().nodename}/999999999/1/1"
    made = apps.docker("run", "-d", "--network=host", "--label", label, "python:3.11", "sleep", "600").stdout.strip()
    assert made
    done = dockeropt("verify", "-q", str(folder))
    assert done.returncode == 0, done.stderr
    assert left_over() == []


@contextlib.contextmanager
def _cuttable(path: Path, daemon: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """A socket in front of the daemon's, and what cuts all its connections."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    open_: list[socket.socket] = [listening]

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(daemon)
                open_.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    def cut() -> None:
        for one in open_:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"unix://{path}", cut
    finally:
        cut()


def test_a_daemon_that_dies_in_a_build_is_one_line(tmp_path: Path) -> None:
    folder = lay_out("notes-sqlite", tmp_path)
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("RUN chmod", "RUN sleep 30 && chmod"))
    text = dockerfile.read_text()
    daemon = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not daemon.startswith("unix://"):
        pytest.skip("the daemon is not at a socket of this machine")
    with _cuttable(tmp_path / "wire.sock", daemon.removeprefix("unix://")) as (address, cut):
        words = [sys.executable, "-P", "-m", "optimizer", "fix", "-w", "--verify", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DOCKER_HOST": address}
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        time.sleep(8)
        assert process.poll() is None
        cut()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(said.strip().splitlines()) == 1
    assert "went away" in said
    assert dockerfile.read_text() == text
