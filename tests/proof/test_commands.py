"""Running a builder's command line: every end is in order, and nothing survives it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from optimizer.verify.commands import BuilderError, Commands, Done, StoppedError
from optimizer.verify.patience import Patience
from tests.proof.fake import is_alive, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes
SHELL = ("/bin/sh", "-c")
# Each writes process ids to a file and stays: a program with a child, a shell whose child is deaf to Ctrl-C (as all that shells
# put into the background), and a program that is itself deaf to it.
PARENT = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
child = subprocess.Popen(["/bin/sleep", "60"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}\\n")
child.wait()
"""
WITH_DEAF_CHILD = "/bin/sleep 20 & echo $$ $! > {}; wait"
DEAF = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
time.sleep(60)
"""


def python(code: str, file: Path) -> tuple[str, ...]:
    program = file.with_suffix(".py")
    program.write_text(code)
    return sys.executable, "-SE", str(program), str(file)


def pids(file: Path) -> list[int]:
    assert until(lambda: file.exists() and file.read_text().endswith("\n"))
    return [int(word) for word in file.read_text().split()]


def are_dead(found: list[int], seconds: float = 2.0) -> bool:
    return until(lambda: not any(map(is_alive, found)), seconds)


def test_a_command_that_ends_gives_its_status_and_both_outputs() -> None:
    done = Commands().ask(*SHELL, "echo out; echo err >&2; exit 3")
    assert done == Done(3, "out\n", "err\n")
    assert done.last_line == "err"


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (Done(1, "a\nb\n\n", ""), "b"),
        (Done(1, "out\n", " first\n last \n \n"), "last"),
        (Done(7, "\n", "\n"), "exit status 7"),
        (Done(1, "out\n", "\n"), "exit status 1"),
    ],
)
def test_the_last_line_that_says_something(done: Done, line: str) -> None:
    assert done.last_line == line


def test_undecodable_output_is_no_error() -> None:
    assert Commands().ask(*SHELL, r"printf '\377x'").out == "\ufffdx"


def test_a_command_gets_nothing_from_the_terminal() -> None:
    assert Commands().ask("/bin/cat", timeout=5.0) == Done(0, "", "")


def test_a_command_gets_the_environment_that_was_set() -> None:
    ran = Commands()
    ran.environment["WHERE"] = "here"
    assert ran.ask(*SHELL, "echo $WHERE").out == "here\n"


def test_a_program_that_is_not_there_is_one_line() -> None:
    with pytest.raises(BuilderError) as caught:
        Commands().ask("no-such-builder", "version")
    assert str(caught.value) == "no-such-builder: No such file or directory"


def test_a_program_that_may_not_be_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("no program")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(BuilderError, match=r"docker: Exec format error$"):
        Commands().ask(str(tmp_path / "docker"))


def test_too_long_a_question_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(BuilderError) as caught:
        Commands().ask(*python(PARENT, tmp_path / "pids"), timeout=0.4)
    assert str(caught.value).startswith("`/")
    assert str(caught.value).endswith("did not answer within 0 s")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, StoppedError)
    assert are_dead(pids(tmp_path / "pids"))


def test_too_long_a_build_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(BuilderError) as caught:
        Commands().follow(*python(f"print('a', flush=True){PARENT}", tmp_path / "pids"), timeout=0.4, on_line=lines.append)
    assert str(caught.value).endswith("took longer than 0 s: stopped (--timeout sets the limit)")
    assert lines == ["a"]
    assert are_dead(pids(tmp_path / "pids"))


def test_what_does_not_end_when_asked_to_is_killed(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="did not answer"):
        Commands(Patience(kill=0.2)).ask(*python(DEAF, tmp_path / "pids"), timeout=0.4)
    assert are_dead(pids(tmp_path / "pids"))


def test_a_child_that_does_not_end_when_asked_to_is_killed(tmp_path: Path) -> None:
    try:
        with pytest.raises(BuilderError, match="did not answer"):
            Commands(Patience(kill=0.2)).ask(*SHELL, WITH_DEAF_CHILD.format(tmp_path / "pids"), timeout=0.2)
        assert are_dead(pids(tmp_path / "pids"), 0.5)
    finally:
        os.kill(pids(tmp_path / "pids")[1], signal.SIGKILL)


def test_a_message_names_the_program_and_no_options() -> None:
    with pytest.raises(BuilderError, match=r"^`/bin/sleep 60` did not answer"):
        Commands().ask("/bin/sleep", "--", "60", timeout=0.1)


def test_lines_come_one_by_one_from_both_outputs() -> None:
    lines: list[str] = []
    code = Commands().follow(*SHELL, r"echo a; printf 'b\r\n' >&2; printf c; exit 2", timeout=5.0, on_line=lines.append)
    assert (code, lines) == (2, ["a", "b", "c"])


def test_a_line_comes_before_the_command_ends() -> None:
    start = time.monotonic()
    when: list[float] = []
    Commands().follow(*SHELL, "echo a; /bin/sleep 0.4", timeout=5.0, on_line=lambda _: when.append(time.monotonic() - start))
    assert when[0] < 0.3


def test_an_error_while_lines_are_taken_in_leaves_no_timer() -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="a"):
        Commands().follow(*SHELL, "echo a", timeout=60.0, on_line=refuse)
    assert until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()), 2.0)


def test_stopping_ends_a_command_of_another_thread(tmp_path: Path) -> None:
    ran = Commands()
    found: list[BaseException] = []

    def work() -> None:
        try:
            ran.follow(*python(PARENT, tmp_path / "pids"), timeout=60.0, on_line=lambda _: None)
        except BuilderError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    alive = pids(tmp_path / "pids")
    ran.stop()
    thread.join(5.0)
    assert not thread.is_alive()
    assert [type(error) for error in found] == [StoppedError]
    assert are_dead(alive)


def test_after_stopping_nothing_is_started(tmp_path: Path) -> None:
    ran = Commands()
    ran.stop()
    ran.stop()
    with pytest.raises(StoppedError):
        ran.ask(*SHELL, f"echo > {tmp_path / 'made'}")
    with pytest.raises(StoppedError):
        ran.follow(*SHELL, f"echo > {tmp_path / 'made'}", timeout=1.0, on_line=lambda _: None)
    with pytest.raises(StoppedError), ran.stream(*SHELL, f"echo > {tmp_path / 'made'}"):
        pass
    with pytest.raises(StoppedError):
        ran.sleep(0.0)
    assert not (tmp_path / "made").exists()


def test_sleeping_goes_on_while_nothing_is_stopped() -> None:
    start = time.monotonic()
    Commands().sleep(0.05)
    assert time.monotonic() - start >= 0.05


def test_a_stream_is_read_while_the_command_runs() -> None:
    with Commands().stream(*SHELL, "printf 1; /bin/sleep 0.2; printf 2") as stream:
        assert stream.read(1) == b"1"
        assert stream.read() == b"2"


def test_a_stream_that_fails_says_why() -> None:
    with (
        pytest.raises(BuilderError, match=r"^`/bin/sh echo a; echo why >&2; exit 1` failed: why$"),
        Commands().stream(*SHELL, "echo a; echo why >&2; exit 1") as stream,
    ):
        stream.read()


def test_a_stream_that_is_left_early_leaves_no_process(tmp_path: Path) -> None:
    ran = Commands()
    with contextlib.suppress(KeyError), ran.stream(*SHELL, f"echo $$ > {tmp_path / 'pids'}; exec /usr/bin/yes") as stream:
        stream.read(10)
        raise KeyError
    assert are_dead(pids(tmp_path / "pids"))


def test_the_watcher_hears_of_every_start_and_end() -> None:
    heard: list[tuple[int, bool]] = []
    ran = Commands()
    ran.watch = lambda pid, *, ended=False: heard.append((pid, ended))
    ran.ask(*SHELL, "exit 1")
    with pytest.raises(BuilderError):
        ran.ask("/bin/sleep", "60", timeout=0.1)
    assert [ended for _, ended in heard] == [False, True, False, True]
    assert heard[0][0] == heard[1][0] != heard[2][0] == heard[3][0]
    with pytest.raises(BuilderError):
        ran.ask("no-such-builder")
    assert len(heard) == 4
