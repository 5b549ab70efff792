"""The stand-in for docker without processes: the same program answers in the process of the test, and waits cost nothing.

Time is made up. Each thread has its own, which moves on with what that thread waits for: what one measures does not depend on
what another does meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.verify import sweep
from optimizer.verify.commands import Commands, Done, failed, no_answer, too_long
from optimizer.verify.patience import USUAL
from tests.proof.fake import Program, write_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, TextIO

    from optimizer.verify.commands import Attendant
    from optimizer.verify.patience import Patience
    from tests.proof.fake import Fake

_CALL = 0.01  # seconds that a call takes at least
_NO_PROCESS = 99_999_999  # more than there can be: whoever sends it a signal hits nobody


class _HangsError(Exception):
    """The program does not answer."""


class _Clock(threading.local):
    """The seconds that a thread has waited."""

    now = 0.0


@dataclass(slots=True)
class _Running:
    """A container that runs: what it does, since when, and its ports."""

    container: dict[str, Any]
    since: float
    listeners: list[socket.socket]


class Simulated:
    """The world of the calls of one test. What serves the ports of containers are threads; the ports are real."""

    def __init__(self) -> None:
        self._clock = _Clock()
        self._running: dict[Path, _Running] = {}

    def now(self) -> float:
        return self._clock.now

    def sleep(self, seconds: float) -> None:
        self._clock.now += seconds

    def hang(self) -> int:
        raise _HangsError

    def start(self, place: Path, container: dict[str, Any]) -> None:
        from tests.proof.fake import listen

        (place / "pid").write_text(f"{_NO_PROCESS}")
        self._running[place] = _Running(container, self.now(), listen(place, container))

    def stop(self, place: Path, grace: float) -> None:
        self.is_over(place)
        if (running := self._running.get(place)) is None:
            return
        after = running.container.get("stops_after", 0.0)
        is_in_time = after is not None and after <= grace
        self.sleep(after if is_in_time else grace)
        self._end(place, 0 if is_in_time else 137)

    def kill(self, place: Path) -> None:
        if place in self._running:
            self._end(place, 137)

    def is_over(self, place: Path) -> None:
        running = self._running.get(place)
        if running is not None and self.now() - running.since >= running.container.get("ends_after", float("inf")):
            self._end(place, 0)

    def end(self) -> None:
        """End all containers."""
        for place in tuple(self._running):
            self.kill(place)

    def _end(self, place: Path, code: int) -> None:
        for listener in self._running.pop(place).listeners:
            listener.shutdown(socket.SHUT_RDWR)  # closing it would not wake the thread that waits for a connection
            listener.close()
        write_exit(place, code)


class InProcess(Commands):
    """Commands that are answered here. A program that the test has not installed is looked for, in vain, as ever."""

    def __init__(self, fake: Fake, world: Simulated, patience: Patience = USUAL) -> None:
        super().__init__(patience)
        self._fake = fake
        self._world = world

    def now(self) -> float:
        return self._world.now()

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)
        self._check()

    def ask(self, *words: str, timeout: float | None = None) -> Done:
        self._check()
        if not self._is_installed(words[0]):
            return super().ask(*words, timeout=timeout)
        limit = self.patience.answer if timeout is None else timeout
        out, err = io.StringIO(), io.StringIO()
        code = self._within(limit, words, out, err)
        self._check()
        if code is None:
            raise no_answer(words, limit)
        return Done(code, out.getvalue(), err.getvalue())

    def follow(self, *words: str, timeout: float, on_line: Callable[[str], None]) -> int:
        self._check()
        if not self._is_installed(words[0]):
            return super().follow(*words, timeout=timeout, on_line=on_line)
        both = _Lines(on_line)
        code = self._within(timeout, words, both, both)
        self._check()
        if code is None:
            raise too_long(words, timeout)
        return code

    @contextlib.contextmanager
    def stream(self, *words: str) -> Iterator[IO[bytes]]:
        self._check()
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        code = self._within(float("inf"), words, out, err)
        out.flush()
        yield io.BytesIO(out.buffer.getvalue())
        self._check()
        if code:
            raise failed(words, Done(code, "", err.getvalue()))

    def attend(self, *words: str) -> Attendant:
        program, label, folder = words[-3:]
        return _Sweep(InProcess(self._fake, self._world, self.patience), program, label, Path(folder))

    def _is_installed(self, program: str) -> bool:
        return (self._fake.bin / program).exists()

    def _within(self, limit: float, words: tuple[str, ...], out: TextIO, err: TextIO) -> int | None:
        """Have a call answered; its exit status, None where that takes longer than `limit` seconds."""
        start = self.now()
        self._world.sleep(_CALL)
        try:
            code = Program(self._fake.state, self._world, out, err).call(*words)
        except _HangsError:
            code = None
        over = self.now() - start - limit if code is not None else 0.0
        if code is not None and over <= 0:
            return code
        self._world.sleep(-over if code is not None else max(limit - _CALL, 0.0))
        return None


class _Lines(io.StringIO):
    """Hands on each line as it is written."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__()
        self._on_line = on_line
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._on_line(line.rstrip("\r"))
        return len(text)


class _Pipe(io.BytesIO):
    """Keeps what was said once it is closed."""

    said = b""

    def close(self) -> None:
        if not self.closed:
            self.said = self.getvalue()
        super().close()


class _Sweep:
    """The second process of a session: when its input ends, it does what that does."""

    def __init__(self, commands: Commands, program: str, label: str, folder: Path) -> None:
        self.stdin = _Pipe()
        self._work = (commands, program, label, folder)

    def wait(self, timeout: float | None = None) -> int:  # noqa: ARG002 - time is made up
        assert self.stdin.closed
        sweep.after(self.stdin.said.decode().splitlines(), *self._work)
        return 0

    def kill(self) -> None:
        raise AssertionError
