"""Clearing up: whatever becomes of the process, its containers, images, commands and folders go; those of others stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from optimizer.verify import sweep
from optimizer.verify.commands import Commands
from optimizer.verify.patience import Patience
from tests.proof.fake import is_alive, until

if TYPE_CHECKING:
    from tests.proof.fake import Fake

ROOT = Path(__file__).parents[2]
HOST = os.uname().nodename
# Holds a sweeper and a command in a session of its own, says what they are called, and waits.
PARENT = """
import subprocess, sys, time
from optimizer.verify import sweep
from optimizer.verify.commands import Commands
label = sweep.mark()
folder = sweep.temporary_folder()
sweeper = sweep.Sweeper(Commands(), "docker", label, folder)
children = [subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) for _ in range(2)]
for child in children:
    sweeper.watch(child.pid)
sweeper.watch(children[1].pid, ended=True)
print(label, folder, *(child.pid for child in children), flush=True)
time.sleep(60)
"""


def gone() -> str:
    """The label of a process that has ended."""
    process = subprocess.Popen(["/bin/true"])
    label = f"{HOST}/{process.pid}/{sweep._started(process.pid) or 1}/{int(time.time())}"
    process.wait()
    return label


def test_the_mark_is_that_of_this_process() -> None:
    host, pid, start, since = sweep.mark().split("/")
    assert (host, pid) == (HOST, str(os.getpid()))
    assert start.isdecimal()
    assert abs(int(since) - time.time()) < 5
    assert not sweep.is_left_over(sweep.mark())


def test_what_a_dead_process_made_is_left_over() -> None:
    assert sweep.is_left_over(gone())


def test_a_process_number_that_is_used_again_is_another_process() -> None:
    host, pid, start, since = sweep.mark().split("/")
    assert sweep.is_left_over(f"{host}/{pid}/{int(start) - 1}/{since}")


@pytest.mark.parametrize(("age", "left"), [(0, False), (3_600, False), (2 * 86_400, True), (-86_400, False)])
def test_another_machine_is_believed_for_a_day(age: int, *, left: bool) -> None:
    assert sweep.is_left_over(f"elsewhere/1/1/{int(time.time()) - age}") == left


@pytest.mark.parametrize(
    "label", ["", "x", "a/b", f"{HOST}/x/1/1", f"{HOST}/99999999/1", f"{HOST}/99999999/1/x", "///", "1/-1/1/1"]
)
def test_a_label_that_is_none_of_ours_is_not_left_over(label: str) -> None:
    assert not sweep.is_left_over(label)


def test_only_what_dead_processes_left_is_cleared(fake: Fake) -> None:
    dead, other = gone(), f"elsewhere/1/1/{int(time.time())}"
    for name, label in (("dead", dead), ("mine", sweep.mark()), ("other", other), ("strange", "no label of ours")):
        fake.add_container(name, label)
        fake.add_image(f"{name}:1", label)
    assert sweep.clear(fake.commands(), "docker") == 2
    assert sorted(fake.containers) == ["mine", "other", "strange"]
    assert sorted(fake.images) == ["mine:1", "other:1", "strange:1"]


def test_one_label_is_cleared_and_no_other(fake: Fake) -> None:
    label = sweep.mark()
    for name, owner in (("mine", label), ("also", label), ("longer", f"{label}0"), ("dead", gone())):
        fake.add_container(name, owner)
        fake.add_image(f"{name}:1", owner)
    assert sweep.clear(fake.commands(), "docker", label) == 4
    assert sorted(fake.containers) == ["dead", "longer"]
    assert sorted(fake.images) == ["dead:1", "longer:1"]
    assert len(fake.called("ps", "-aq", "--no-trunc", "--filter", f"label=dockeropt.verify={label}")) == 1


def test_where_there_is_nothing_nothing_is_removed(fake: Fake) -> None:
    assert sweep.clear(fake.commands(), "docker") == 0
    assert sweep.clear(fake.commands(), "docker", "x") == 0
    assert [call[1] for call in fake.calls] == ["ps", "images"] * 2


def test_a_daemon_that_is_gone_is_no_error(fake: Fake) -> None:
    fake.add_container("dead", gone())
    fake.reply("ps", code=1, err="Cannot connect")
    fake.reply("images", code=1, err="Cannot connect")
    assert sweep.clear(fake.commands(), "docker") == 0
    assert sweep.clear(fake.commands(), "no-such-program") == 0


def test_folders_of_dead_processes_go_and_no_others(fake: Fake) -> None:
    place = Path(tempfile.gettempdir())
    assert place == fake.state.parent / "tmp"
    _, pid, start, _ = gone().split("/")
    mine = sweep.temporary_folder()
    (mine / "x").write_text("1")
    for name in (
        f"dockeropt-verify-{pid}-{start}-abc",
        f"dockeropt-verify-{os.getpid()}-1-abc",
        "dockeropt-verify-x-1",
        "other",
    ):
        (place / name).mkdir()
        (place / name / "x").write_text("1")
    sweep.clear_folders()
    assert {folder.name for folder in place.iterdir()} == {mine.name, "dockeropt-verify-x-1", "other"}


@pytest.fixture
def parent(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> tuple[subprocess.Popen[str], str, Path, list[int]]:
    """A process with a sweeper, its label, its folder, and its two commands: the second has ended for the sweeper."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(fake.state.parent / "tmp"))
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    label, folder, *pids = process.stdout.readline().split()
    fake.add_container("made", label)
    fake.add_image("made:1", label)
    fake.add_container("other", sweep.mark())
    return process, label, Path(folder), [int(pid) for pid in pids]


@pytest.mark.processes
def test_a_killed_process_is_cleared_up_after(fake: Fake, parent: tuple[subprocess.Popen[str], str, Path, list[int]]) -> None:
    process, label, folder, (child, ended) = parent
    assert folder.is_dir()
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    try:
        assert until(lambda: not folder.exists())
        assert until(lambda: not is_alive(child))
        assert is_alive(ended)  # its number may be another process by now
        assert fake.containers == ["other"]
        assert fake.images == []
        assert ["docker", "rm", "-f", "-v", "made"] in fake.calls
        assert any(f"label=dockeropt.verify={label}" in call for call in fake.called("ps"))
    finally:
        os.killpg(ended, signal.SIGKILL)


@pytest.mark.processes
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_sweeper_outlives_a_request_to_end(fake: Fake, sign: int) -> None:
    label, folder = sweep.mark(), sweep.temporary_folder()
    sweeper = sweep.Sweeper(Commands(), "docker", label, folder)
    fake.add_container("made", label)
    pid = _process(sweeper).pid
    assert until(lambda: int(_status(pid, "SigIgn"), 16) & 1 << (sign - 1))
    os.killpg(pid, sign)
    time.sleep(0.1)
    assert is_alive(pid)
    assert folder.is_dir()
    sweeper.finish()
    assert not folder.exists()
    assert fake.containers == []


def _process(sweeper: sweep.Sweeper) -> subprocess.Popen[bytes]:
    assert isinstance(sweeper._process, subprocess.Popen)
    return sweeper._process


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


@pytest.mark.processes
def test_finishing_twice_or_after_the_sweeper_died_is_no_error(fake: Fake) -> None:
    sweeper = sweep.Sweeper(Commands(), "docker", sweep.mark(), sweep.temporary_folder())
    sweeper._process.kill()
    sweeper._process.wait()
    sweeper.watch(os.getpid())
    sweeper.finish()
    sweeper.finish()
    assert fake.called("rm") == []


@pytest.mark.processes
def test_a_daemon_that_hangs_does_not_hold_up_the_end(fake: Fake) -> None:
    fake.reply("ps", hangs=True)
    sweeper = sweep.Sweeper(Commands(Patience(clear=0.8)), "docker", sweep.mark(), sweep.temporary_folder())
    start = time.monotonic()
    sweeper.finish()
    assert time.monotonic() - start < 3
    assert not is_alive(_process(sweeper).pid)
    if fake.hung:
        os.killpg(os.getpgid(fake.hung[0]), signal.SIGKILL)
