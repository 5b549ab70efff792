"""Clear away what a verification made: its containers, images and temporary files, whatever became of its process.

A second process, `python -m optimizer.verify.sweep`, waits at a pipe until the first one ends, even where that is killed, and
clears up. What a crash of the machine leaves is found by its label and cleared by the next run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.verify.builders import LABEL
from optimizer.verify.commands import BuilderError, Commands, end_groups

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "dockeropt-verify-"
_DAY = 86_400


def mark() -> str:
    """The label of this process's containers and images: host, process, its start, and now (seconds since 1970)."""
    pid = os.getpid()
    return f"{os.uname().nodename}/{pid}/{_started(pid)}/{int(time.time())}"


def is_left_over(label: str) -> bool:
    """Whether the process that set `label` is gone; one on another machine counts as gone after a day."""
    host, pid, start, since = (*label.split("/"), "", "", "", "")[:4]
    if not (pid.isdecimal() and since.isdecimal()):
        return False
    if host != os.uname().nodename:
        return time.time() - int(since) > _DAY
    return _started(int(pid)) != start


def clear(commands: Commands, program: str, label: str | None = None) -> int:
    """Remove the containers and images with this label; without one, those of processes that are gone. How many there were.

    `program` is docker or podman. What cannot be removed stays for the next time.
    """
    removed = 0
    for kind, listed, remove in (("container", ("ps", "-aq"), ("rm", "-f", "-v")), ("image", ("images", "-q"), ("rmi", "-f"))):
        name = LABEL if label is None else f"{LABEL}={label}"
        found = _lines(commands, program, *listed, "--no-trunc", "--filter", f"label={name}")
        if label is None and found:
            found = [item for item, owner in _owners(commands, program, kind, found).items() if is_left_over(owner)]
        if found:
            _lines(commands, program, *remove, *dict.fromkeys(found))
        removed += len(found)
    return removed


def clear_folders() -> None:
    """Remove the temporary folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid, _, rest = folder.name.removeprefix(PREFIX).partition("-")
        if pid.isdecimal() and _started(int(pid)) != rest.partition("-")[0]:
            shutil.rmtree(folder, ignore_errors=True)


def temporary_folder() -> Path:
    """A new folder whose name says which process it belongs to."""
    pid = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{pid}-{_started(pid)}-"))


class Sweeper:
    """Holds the pipe that the second process waits at."""

    def __init__(self, commands: Commands, program: str, label: str, folder: Path) -> None:
        self._patience = commands.patience
        words = (sys.executable, "-P", "-m", "optimizer.verify.sweep", program, label, str(folder))
        self._process = commands.attend(*words)

    def watch(self, pid: int, *, ended: bool = False) -> None:
        """Also end this process and its group, should we end before it; no longer, once it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{'-' if ended else '+'}{pid}\n".encode())
            self._process.stdin.flush()

    def finish(self) -> None:
        """Clear up now; returns when that is done."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(self._patience.clear)
        except subprocess.TimeoutExpired:  # a daemon that hangs: the next run clears up
            self._process.kill()
            self._process.wait()


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty where it is gone. A number that is used again has another start."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if Path("/proc").is_dir() or not _answers(pid) else "running"


def _answers(pid: int) -> bool:
    """Whether there is such a process, where the system has no /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _owners(commands: Commands, program: str, kind: str, names: list[str]) -> dict[str, str]:
    lines = _lines(commands, program, kind, "inspect", "--format", "{{json .}}", *names)
    found = {}
    for line in lines:
        described = json.loads(line)
        found[described["Id"]] = ((described.get("Config") or {}).get("Labels") or {}).get(LABEL, "")
    return found


def _lines(commands: Commands, *words: str) -> list[str]:
    try:
        done = commands.ask(*words, timeout=commands.patience.clear)
    except BuilderError:
        return []  # no daemon, or the run is interrupted: what is left is found by the next run
    return done.out.split("\n")[:-1]


def after(said: Iterable[str], commands: Commands, program: str, label: str, folder: Path) -> None:
    """Wait until nothing more is said, then end the processes that were named and clear up."""
    pids: set[int] = set()
    for line in said:
        (pids.add if line.startswith("+") else pids.discard)(int(line[1:]))
    patience = commands.patience
    end_groups(sorted(pids), lambda: None, patience.kill_strays, patience.pause)
    clear(commands, program, label)
    if pids:  # what they had asked of the daemon may have come about since
        commands.sleep(patience.straggle)
        clear(commands, program, label)
    shutil.rmtree(folder, ignore_errors=True)


def main(program: str, label: str, folder: str) -> None:
    """Be the second process."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    after(sys.stdin, Commands(), program, label, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:4])
