"""What an image does when it is started: ends or listens, answers, is healthy, stops. And whether two images do the same."""

from __future__ import annotations

import difflib
import http.client
import shlex
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optimizer.verify.builders import LABEL
from optimizer.verify.containers import STOP_SECONDS, Container, Port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.settings import Verify
    from optimizer.verify.builders import Builder
    from optimizer.verify.images import ImageConfig

MAX_BODY = 8 << 20
_POLL = 0.1
_QUIET = 3.0  # seconds without a port, where none is promised, until a program counts as one that just runs
_SETTLE = 1.5  # seconds until an open port that does not speak HTTP counts as ready
_ELSEWHERE = 5.0  # seconds for which a program may listen on other ports than the original before it counts as different
_HEALTH_TRIES = 5
_SLOWER = 2.0  # seconds of noise in how long a stop takes
_EPHEMERAL = 32768
_KEPT_LINES = 2_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one GET: status, where a redirect leads, the body. A status of 0 is a port that speaks no HTTP."""

    port: int
    path: str
    status: int
    location: str = ""
    body: bytes = b""

    @property
    def question(self) -> str:
        return f"GET :{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one start of an image did.

    `problem`: why it cannot be judged, if so; `exit_code`: None while it runs; `health`: None without a health check;
    `stop_seconds`: None where not measured; `output`: its last lines, or all that a smoke command wrote.
    """

    exit_code: int | None = None
    ports: tuple[Port, ...] = ()
    answers: tuple[Answer, ...] = ()
    health: bool | None = None
    stop_seconds: float | None = None
    ready_seconds: float = 0.0
    output: tuple[str, ...] = ()
    problem: str = ""
    smoke: str | None = None


@dataclass(slots=True)
class _Ready:
    """How far a container has come."""

    exit_code: int | None = None
    ports: frozenset[Port] = field(default_factory=frozenset)
    answers: tuple[Answer, ...] = ()


class Observer:
    """Starts images one after the other and watches them, as `options` say. `helper` is an image with `cat`: the original."""

    def __init__(self, builder: Builder, options: Verify, helper: str) -> None:
        self.builder = builder
        self.options = options
        self.helper = helper
        self._count = 0

    def observe(
        self,
        tag: str,
        config: ImageConfig,
        *options: str,
        like: Behaviour | None = None,
        stops: bool = True,
        is_brief: bool = False,
        wait: float | None = None,
    ) -> Behaviour:
        """Start the image `tag` with `options` and watch it; stop it if `stops`.

        `like` is what the original did: its ports are waited for, `wait` seconds or as long as the settings say. `is_brief`:
        answers alone are asked for, as for hints.
        """
        if self.options.smoke is not None:
            return self._smoke(tag, *options)
        container = self._container(tag, config)
        start = time.monotonic()
        try:
            if (problem := container.start(*options, environment=self.options.env)) is not None:
                return Behaviour(problem=problem)
            ready = self._ready(container, config, like, self.options.wait if wait is None else wait)
            seconds = time.monotonic() - start
            found = Behaviour(ready.exit_code, _worth_comparing(ready.ports, config), ready.answers, ready_seconds=seconds)
            if is_brief or ready.exit_code is not None:
                return replace(found, output=container.logs())
            found = replace(found, health=self._health(container, config), output=container.logs())
            if not stops:
                return found
            ignores = container.ignores(config.stop_signal)  # it would be killed, and nobody has to wait for that
            return replace(found, stop_seconds=float(STOP_SECONDS) if ignores else container.stop())
        finally:
            container.remove()

    def _container(self, tag: str, config: ImageConfig) -> Container:
        self._count += 1
        name = f"{LABEL.replace('.', '-')}-{self.builder.label.split('/')[1]}-{id(self):x}-{self._count}"
        return Container(self.builder, tag, name, config.tcp_ports, self.helper)

    def _smoke(self, tag: str, *options: str) -> Behaviour:
        assert self.options.smoke is not None
        words = ["run", "--rm", "--label", f"{LABEL}={self.builder.label}", *options]
        words += ["--network", self.builder.network] if self.builder.network != "default" else []
        words += [word for variable in self.options.env for word in ("-e", variable)]
        start = time.monotonic()
        done = self.builder.run(*words, tag, *shlex.split(self.options.smoke), timeout=max(self.options.wait, 600.0))
        seconds = time.monotonic() - start
        output = tuple(done.out.splitlines()[:_KEPT_LINES])
        problem = done.last_line if done.code == 125 else ""  # 125: the runtime itself failed
        return Behaviour(done.code, output=output, ready_seconds=seconds, problem=problem, smoke=self.options.smoke)

    # ---------------------------------------------------------------- until it is ready

    def _ready(self, container: Container, config: ImageConfig, like: Behaviour | None, wait: float) -> _Ready:
        """Wait until it has ended, answers, or will not any more."""
        start = time.monotonic()
        limit = max(wait, 3 * like.ready_seconds if like is not None else 0)
        expected = frozenset(like.ports) if like is not None else None
        promised = bool(config.tcp_ports or self.options.http) if expected is None else bool(expected)
        found = _Ready()
        since = start
        while (now := time.monotonic()) - start < limit:
            status = container.status()
            if not status.is_running:
                found.exit_code = status.exit_code
                return found
            ports = container.listening()
            if ports != found.ports:
                found.ports, since = ports, now
            if ports and (expected is None or expected <= ports):
                found.answers = self._ask(container, config, ports)
                is_settled = now - since > _SETTLE
                if found.answers and (all(0 < answer.status < 500 for answer in found.answers) or is_settled):
                    return found
            elif ports and now - since > _ELSEWHERE:
                return found  # it listens, but not where the original does
            elif not ports and not promised and now - start > _QUIET:
                return found
            self.builder.commands.sleep(_POLL)
        return found

    def _ask(self, container: Container, config: ImageConfig, ports: frozenset[Port]) -> tuple[Answer, ...]:
        """GET every path on the exposed ports that listen, or on all ports where none of them is exposed."""
        exposed = [port for port in sorted(ports) if port.number in config.tcp_ports]
        found = []
        for port in exposed or _worth_comparing(ports, config):
            address = container.address(port)
            for path in _paths(self.options.http, port) if address is not None else ():
                assert address is not None
                found.append(_get(address, port.number, path))
                if found[-1].status == 0:
                    break  # it speaks no HTTP
        return tuple(found)

    def _health(self, container: Container, config: ImageConfig) -> bool | None:
        """Whether the image's own health check passes within some tries; None without one."""
        if config.health_command is None:
            return None
        for attempt in range(_HEALTH_TRIES):
            if container.exec(*config.health_command, timeout=30.0) == 0:
                return True
            self.builder.commands.sleep(min(attempt + 1, 2))
        return False


def _paths(paths: tuple[str, ...], port: Port) -> Iterator[str]:
    for path in paths or ("/",):
        number, _, rest = path[1:].partition("/") if path.startswith(":") else ("", "", path.lstrip("/"))
        if number in ("", str(port.number)):
            yield f"/{rest}"


def _get(address: tuple[str, int], port: int, path: str) -> Answer:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": f"localhost:{port}", "User-Agent": "dockeropt", "Accept": "*/*"})
        response = connection.getresponse()
        return Answer(port, path, response.status, response.getheader("Location") or "", response.read(MAX_BODY))
    except (OSError, http.client.HTTPException):
        return Answer(port, path, 0)
    finally:
        connection.close()


def _worth_comparing(ports: frozenset[Port], config: ImageConfig) -> tuple[Port, ...]:
    """Without the ports that the kernel picked at random."""
    return tuple(sorted(port for port in ports if port.number < _EPHEMERAL or port.number in config.tcp_ports))


# -------------------------------------------------------------------- comparing


def why_not_comparable(before: Behaviour, config: ImageConfig) -> str | None:
    """Why nothing can be claimed about an original that behaves so; None where it can."""
    if before.problem:
        return f"the original cannot be started: {before.problem}"
    if before.smoke is not None:
        return None if before.exit_code == 0 else f"`{before.smoke}` ends with {before.exit_code} in the original"
    promises = ", ".join(map(str, config.tcp_ports))
    if before.exit_code is not None and promises:
        return f"the original exposes {promises}, but ends with {before.exit_code} before it answers (--env sets what it needs)"
    if before.exit_code is None and promises and not before.ports:
        return f"the original exposes {promises}, but listens on no port (--wait gives it more time)"
    if any(answer.status >= 500 for answer in before.answers):
        bad = next(answer for answer in before.answers if answer.status >= 500)
        return f"the original answers {bad.question} with {bad.status}"
    return None


def differences(before: Behaviour, after: Behaviour, again: Behaviour | None, *, compares_body: bool) -> Iterator[str]:
    """What the rewritten image does otherwise, in words.

    `again` is a second start of the original: lines in which it differs from itself are not compared.
    """
    if after.problem:
        yield f"it cannot be started: {after.problem}"
        return
    if before.exit_code != after.exit_code:
        yield f"{_ending(after)}; the original {_ending(before).removeprefix('it ')}{_said(after)}"
        return
    if before.ports != after.ports:
        yield f"it listens on {_listed(after.ports)}; the original on {_listed(before.ports)}"
    if before.smoke is not None and compares_body:
        yield from _lines_differ("its output", before.output, after.output, again.output if again else before.output)
    second = {(a.port, a.path): a for a in again.answers} if again is not None else {}
    for old, new in _pairs(before.answers, after.answers):
        if new is None:
            continue  # the port differs: said above
        if (old.status, old.location) != (new.status, new.location):
            yield f"{old.question}: {_answered(new)}; the original: {_answered(old)}{_said(after)}"
        elif compares_body and old.body != new.body:
            other = second.get((old.port, old.path), old)
            yield from _lines_differ(f"{old.question}: the body", _text(old), _text(new), _text(other))
    if before.health and not after.health:
        yield f"its health check fails{_said(after)}"
    limit = None if before.stop_seconds is None else before.stop_seconds + _SLOWER
    if after.stop_seconds is not None and limit is not None and after.stop_seconds > limit:
        yield f"it stops after {after.stop_seconds:.1f} s; the original after {before.stop_seconds:.1f} s"


def bodies_differ(before: Behaviour, after: Behaviour) -> bool:
    """Whether answers of the same status have other bodies, or a smoke command other output: is the original its own equal?"""
    if before.smoke is not None:
        return before.output != after.output
    return any(
        new is not None and old.status == new.status and old.body != new.body
        for old, new in _pairs(before.answers, after.answers)
    )


def works(before: Behaviour, after: Behaviour) -> bool:
    """Whether it ends, listens and answers with the same statuses."""
    return not after.problem and (before.exit_code, before.ports, [a.status for a in before.answers]) == (
        after.exit_code,
        after.ports,
        [a.status for a in after.answers],
    )


def _pairs(before: tuple[Answer, ...], after: tuple[Answer, ...]) -> Iterator[tuple[Answer, Answer | None]]:
    by_question = {(answer.port, answer.path): answer for answer in after}
    for old in before:
        yield old, by_question.get((old.port, old.path))


def _lines_differ(what: str, before: tuple[str, ...], after: tuple[str, ...], again: tuple[str, ...]) -> Iterator[str]:
    """One line about the first of the lines that every start of the original has and `after` has not."""
    steady = _common(before, again)
    left = list(after)
    for line in steady:
        if line not in left:
            yield f'{what} lacks "{line.strip()[:100]}"'
            return
        del left[: left.index(line) + 1]
    if before == again and left:
        yield f'{what} has "{left[0].strip()[:100]}" more'


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    if first == second:
        return list(first)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    return [line for block in matcher.get_matching_blocks() for line in first[block.a : block.a + block.size]]


def _text(answer: Answer) -> tuple[str, ...]:
    return tuple(answer.body.decode("utf-8", "backslashreplace").splitlines()[:_KEPT_LINES])


def _answered(answer: Answer) -> str:
    if not answer.status:
        return "no HTTP"
    return f"{answer.status}" + (f" to {answer.location}" if answer.location else "")


def _ending(behaviour: Behaviour) -> str:
    return "it keeps running" if behaviour.exit_code is None else f"it ends with {behaviour.exit_code}"


def _said(behaviour: Behaviour) -> str:
    """The last line of its own output, behind a colon."""
    return f" ({behaviour.output[-1].strip()[:200]})" if behaviour.output else ""


def _listed(ports: tuple[Port, ...]) -> str:
    return ", ".join(map(str, ports)) or "no port"


def summary(behaviour: Behaviour) -> str:
    """What it did, in one line."""
    if behaviour.smoke is not None:
        return f"`{behaviour.smoke}` ends with {behaviour.exit_code}, {len(behaviour.output)} lines"
    if behaviour.exit_code is not None:
        return f"ends with {behaviour.exit_code}"
    said = [f"{a.question} {a.status}, {len(a.body)} bytes" for a in behaviour.answers if a.status]
    said += [f"listens on {_listed(behaviour.ports)}"] if not said else []
    said += ["healthy" if behaviour.health else "unhealthy"] if behaviour.health is not None else []
    if behaviour.stop_seconds is not None:
        said.append(
            f"stops in {behaviour.stop_seconds:.1f} s" + (" (killed)" if behaviour.stop_seconds >= STOP_SECONDS else "")
        )
    return "; ".join(said)
