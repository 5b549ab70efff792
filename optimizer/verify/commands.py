"""The builder's command line, run so that all it started can be stopped: at a time-out, at Ctrl-C, at an error elsewhere."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from optimizer.verify.patience import USUAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO

    from optimizer.verify.patience import Patience


class BuilderError(Exception):
    """The builder or its daemon cannot do what verification needs; the message is one line that says what to do."""


class StoppedError(BuilderError):
    """The run was interrupted: its processes are stopped, nothing may be started any more."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: exit status, what it wrote to standard output and to standard error."""

    code: int
    out: str
    err: str = ""

    @property
    def last_line(self) -> str:
        """The last line that it said, for an error message."""
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self.code}"


class Attendant(Protocol):
    """A process that waits at its standard input for what it is told there, and for the end of it."""

    @property
    def stdin(self) -> IO[bytes] | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Commands:
    """Runs commands, also from several threads, and can stop all of them at once. Verification reads its clock here, too.

    Each runs in a session of its own: a Ctrl-C at the terminal reaches dockeropt alone, which then ends them in order.
    `watch`, once it is set, is told the process id of each, and again, with `ended`, when that has ended. `patience` is for
    them and for all that is waited for between them.
    """

    def __init__(self, patience: Patience = USUAL) -> None:
        self.patience = patience
        self.environment = dict(os.environ)
        self.watch: Callable[..., None] | None = None
        self._live: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def ask(self, *words: str, timeout: float | None = None) -> Done:
        """Run a command to its end. Raises BuilderError if it is not there or takes longer than `timeout` seconds: without one,
        as long as an answer may take."""
        timeout = self.patience.answer if timeout is None else timeout
        with self._started(words, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                raise no_answer(words, timeout) from None
        self._check()
        return Done(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    def follow(self, *words: str, timeout: float, on_line: Callable[[str], None]) -> int:
        """Run a command and hand on each line of either output as it comes; its exit status.

        Raises BuilderError if it is not there or takes longer than `timeout` seconds.
        """
        with self._started(words, stderr=subprocess.STDOUT) as process:
            late = threading.Event()

            def give_up() -> None:
                late.set()
                self._end(process)

            timer = threading.Timer(timeout, give_up)
            timer.start()
            try:
                for line in _lines(process, self.patience.glance):
                    on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
                process.wait()
            finally:
                timer.cancel()
        self._check()
        if late.is_set():
            raise too_long(words, timeout)
        return process.returncode

    @contextlib.contextmanager
    def stream(self, *words: str) -> Iterator[IO[bytes]]:
        """The standard output of a command, to read while it runs. Raises BuilderError where it fails."""
        with self._started(words, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            yield process.stdout
            process.stdout.close()
            err = process.stderr.read().decode("utf-8", "replace")
            code = process.wait()
        self._check()
        if code:
            raise failed(words, Done(code, "", err))

    def stop(self) -> None:
        """End every command that still runs; later ones raise StoppedError."""
        with self._lock:
            self._is_stopped = True
            live = tuple(self._live)
        self._end(*live)

    def attend(self, *words: str) -> Attendant:
        """Start a process that `stop` does not end: it waits at its standard input."""
        return subprocess.Popen(  # noqa: S603 - ourselves
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def now(self) -> float:
        """Seconds since some moment, to measure with."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait. Raises StoppedError once the run is stopped."""
        time.sleep(seconds)
        self._check()

    def _check(self) -> None:
        if self._is_stopped:
            raise StoppedError("interrupted")

    @contextlib.contextmanager
    def _started(self, words: Sequence[str], *, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            self._check()
            try:
                process = subprocess.Popen(  # noqa: S603 - the builder's own command line
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=self.environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise BuilderError(f"{words[0]}: {error.strerror}") from error
            self._live.add(process)
            if self.watch is not None:
                self.watch(process.pid)
        try:
            with process:
                try:
                    yield process
                except BaseException:
                    self._end(process)  # leaving `with process` would wait for it
                    raise
        finally:
            with self._lock:
                self._live.discard(process)
                if self.watch is not None:
                    self.watch(process.pid, ended=True)

    def _end(self, *processes: subprocess.Popen[bytes]) -> None:
        """Ask processes and their children to end; kill those that do not."""

        def reap() -> None:
            for process in processes:
                process.poll()  # one that nobody waits for stays in its group

        end_groups([process.pid for process in processes], reap, self.patience.kill, self.patience.pause)


def _lines(process: subprocess.Popen[bytes], glance: float) -> Iterator[bytes]:
    """The lines that a process writes, looked for every `glance` seconds.

    They are read in a thread of their own: a signal does not interrupt a read that has not quite begun, and this thread has to
    see it.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # it was closed: nobody waits for more
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=glance)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def end_groups(groups: Iterable[int], reap: Callable[[], None], kill: float, pause: float) -> None:
    """Ask groups of processes to end; kill what is left of them after `kill` seconds, and look every `pause` seconds. `reap`
    waits for those of ours."""
    left = list(groups)
    for sign in (signal.SIGINT, signal.SIGKILL):
        left = [group for group in left if _signal(group, sign)]
        end = time.monotonic() + kill
        while left and time.monotonic() < end:
            reap()
            left = [group for group in left if _signal(group, 0)]
            time.sleep(pause)


def _signal(group: int, sign: int) -> bool:
    """Send a signal to a group of processes; whether there is anything left of it."""
    try:
        os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):
        return False  # it is gone, or its number is somebody else's by now
    return True


def no_answer(words: Sequence[str], seconds: float) -> BuilderError:
    """A question that took longer."""
    return BuilderError(f"`{_short(words)}` did not answer within {seconds:.0f} s")


def too_long(words: Sequence[str], seconds: float) -> BuilderError:
    """A build that took longer."""
    return BuilderError(f"`{_short(words)}` took longer than {seconds:.0f} s: stopped (--timeout sets the limit)")


def failed(words: Sequence[str], done: Done) -> BuilderError:
    """A stream that ended before its time."""
    return BuilderError(f"`{_short(words)}` failed: {done.last_line}")


def _short(words: Sequence[str]) -> str:
    """The program and its first words, for a message."""
    return " ".join([word for word in words if not word.startswith("-")][:3])
