"""What an image does when it is started: ends or listens, answers, is healthy, stops. And whether two images do the same."""

from __future__ import annotations

import difflib
import http.client
import re
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optimizer.verify.builders import LABEL
from optimizer.verify.containers import Container, Port, marked, variables
from optimizer.verify.patience import USUAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.settings import Verify
    from optimizer.verify.builders import Builder
    from optimizer.verify.images import ImageConfig
    from optimizer.verify.patience import Patience

MAX_BODY = 8 << 20
_IN_USE = re.compile(r"address (is )?already in use|EADDRINUSE", re.IGNORECASE)
_TOLD_LINES = 20
_PIECES = re.compile(r"\n|(?<=[,{}<>;])")
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
    `stop_seconds`: None where not measured; `output`: its last lines; `written`: its standard output, where it ended.
    """

    exit_code: int | None = None
    ports: tuple[Port, ...] = ()
    answers: tuple[Answer, ...] = ()
    health: bool | None = None
    stop_seconds: float | None = None
    ready_seconds: float = 0.0
    output: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
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
        self.commands = builder.commands
        self.patience = builder.commands.patience
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
        found = self._observe(tag, config, options, like, wait, stops=stops, is_brief=is_brief)
        if found.exit_code and self.builder.network == "host" and any(_IN_USE.search(line) for line in found.output):
            self.commands.sleep(self.patience.lingers)  # the port of the container before it is not free yet
            found = self._observe(tag, config, options, like, wait, stops=stops, is_brief=is_brief)
        return found

    def _observe(
        self,
        tag: str,
        config: ImageConfig,
        options: tuple[str, ...],
        like: Behaviour | None,
        wait: float | None,
        *,
        stops: bool,
        is_brief: bool,
    ) -> Behaviour:
        container = self._container(tag, config)
        start = self.commands.now()
        try:
            if (problem := container.start(*options, environment=self.options.env)) is not None:
                return Behaviour(problem=problem)
            limit = wait if wait is not None else self.options.wait
            if wait is None and like is not None:
                limit = max(limit, 3 * like.ready_seconds)
            ready = self._ready(container, config, like, limit)
            found = Behaviour(ready.exit_code, tuple(sorted(ready.ports)), ready.answers)
            found = replace(found, ready_seconds=self.commands.now() - start if ready.answers else 0.0)
            if is_brief or ready.exit_code is not None:
                return _with_output(found, container)
            health = self._health(container, config)
            found = _with_output(replace(self._seen_again(container, found), health=health), container)
            if not stops or found.exit_code is not None:
                return found
            ignores = container.ignores(config.stop_signal)  # it would be killed, and nobody has to wait for that
            return replace(found, stop_seconds=float(self.patience.stop) if ignores else container.stop())
        finally:
            container.remove()

    @staticmethod
    def _seen_again(container: Container, found: Behaviour) -> Behaviour:
        """Whether it still runs and listens: some open a port late, and some fall over late."""
        status = container.status()
        if not status.is_running:
            return replace(found, exit_code=status.exit_code, ports=(), answers=())
        return replace(found, ports=tuple(sorted(container.listening())))

    def _container(self, tag: str, config: ImageConfig) -> Container:
        self._count += 1
        name = f"{LABEL.replace('.', '-')}-{self.builder.label.split('/')[1]}-{id(self):x}-{self._count}"
        return Container(self.builder, tag, name, config.tcp_ports, self.helper)

    def _smoke(self, tag: str, *options: str) -> Behaviour:
        assert self.options.smoke is not None
        words = ("run", "--rm", *marked(self.builder), *options, *variables(self.options.env))
        start = self.commands.now()
        done = self.builder.run(
            *words, tag, *shlex.split(self.options.smoke), timeout=max(self.options.wait, self.patience.smoke)
        )
        seconds = self.commands.now() - start
        output = tuple((done.out + done.err).splitlines()[-_TOLD_LINES:])
        written = tuple(done.out.splitlines()[:_KEPT_LINES])
        problem = done.last_line if done.code == 125 else ""  # 125: the runtime itself failed
        return Behaviour(
            done.code, output=output, written=written, ready_seconds=seconds, problem=problem, smoke=self.options.smoke
        )

    # ---------------------------------------------------------------- until it is ready

    def _ready(self, container: Container, config: ImageConfig, like: Behaviour | None, wait: float) -> _Ready:
        """Wait until it has ended, answers, or will not any more."""
        start = self.commands.now()
        expected = frozenset(_steady(like.ports, config)) if like is not None else None
        promised = bool(config.tcp_ports or self.options.http) if expected is None else bool(expected)
        found = _Ready()
        since = start
        while (now := self.commands.now()) - start < wait:
            status = container.status()
            if not status.is_running:
                found.exit_code = status.exit_code
                return found
            ports = container.listening()
            if ports != found.ports:
                found.ports, since = ports, now
            is_late = expected is None and len(config.tcp_ports) > len(ports) and now - since < self.patience.elsewhere
            if ports and not is_late and (expected is None or expected <= ports):
                found.answers = self._ask(container, config, ports)
                is_settled = now - since > self.patience.settle
                if not found.answers and is_settled:
                    return found  # there is nothing to ask it
                if found.answers and (all(0 < answer.status < 500 for answer in found.answers) or is_settled):
                    return found
            elif ports and now - since > self.patience.elsewhere:
                return found  # it listens, but not where the original does
            elif not ports and not promised and now - start > self.patience.quiet:
                return found
            self.commands.sleep(self.patience.poll)
        return found

    def _ask(self, container: Container, config: ImageConfig, ports: frozenset[Port]) -> tuple[Answer, ...]:
        """GET every path on the exposed ports that listen, or on all ports where none of them is exposed."""
        exposed = [port for port in sorted(ports) if port.number in config.tcp_ports]
        found = []
        for port in exposed or _steady(tuple(sorted(ports)), config) or sorted(ports):
            address = container.address(port)
            for path in _paths(self.options.http, port) if address is not None else ():
                assert address is not None
                found.append(_get(address, port.number, path, self.patience.page))
                if found[-1].status == 0:
                    break  # it speaks no HTTP
        return tuple(found)

    def _health(self, container: Container, config: ImageConfig) -> bool | None:
        """Whether the image's own health check passes within some tries; None without one."""
        if config.health_command is None:
            return None
        end = self.commands.now() + max(self.patience.health, min(config.health_start_period, self.options.wait))
        while container.exec(*config.health_command, timeout=self.patience.health_answer):
            if self.commands.now() > end or not container.status().is_running:
                return False
            self.commands.sleep(self.patience.health_pause)
        return True


def _paths(paths: tuple[str, ...], port: Port) -> Iterator[str]:
    for wanted in paths or ("/",):
        number, path = _asked(wanted)
        if number in ("", str(port.number)):
            yield path


def _asked(wanted: str) -> tuple[str, str]:
    """The port, empty for all, and the path of what `--http` asks for."""
    number, _, rest = wanted[1:].partition("/") if wanted.startswith(":") else ("", "", wanted.lstrip("/"))
    return number, f"/{rest}"


def _get(address: tuple[str, int], port: int, path: str, timeout: float) -> Answer:
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": f"localhost:{port}", "User-Agent": "dockeropt", "Accept": "*/*"})
        response = connection.getresponse()
        return Answer(port, path, response.status, response.getheader("Location") or "", response.read(MAX_BODY))
    except (OSError, http.client.HTTPException):
        return Answer(port, path, 0)
    finally:
        connection.close()


def _steady(ports: tuple[Port, ...], config: ImageConfig) -> tuple[Port, ...]:
    """Without the ports that the kernel may have picked at random."""
    return tuple(port for port in ports if port.number < _EPHEMERAL or port.number in config.tcp_ports)


def _with_output(found: Behaviour, container: Container) -> Behaviour:
    """With what it wrote: the last lines, and all of standard output where it has ended."""
    written = container.written()[:_KEPT_LINES] if found.exit_code is not None else ()
    return replace(found, output=container.logs(), written=written)


# -------------------------------------------------------------------- comparing


def _is_answered(wanted: str, before: Behaviour) -> bool:
    number, path = _asked(wanted)
    return any(a.path == path and a.status and number in ("", str(a.port)) for a in before.answers)


def why_not_comparable(before: Behaviour, config: ImageConfig, paths: tuple[str, ...] = ()) -> str | None:
    """Why nothing can be claimed about an original that behaves so; None where it can. `paths` were asked for by name."""
    if before.problem:
        return f"the original cannot be started: {before.problem}"
    if before.smoke is not None:
        return None if before.exit_code == 0 else f"`{before.smoke}` ends with {before.exit_code} in the original"
    if missing := next((path for path in paths if not _is_answered(path, before)), None):
        return f"the original does not answer {missing}"
    promises = ", ".join(map(str, config.tcp_ports))
    if before.exit_code and not promises:
        return f"the original ends with {before.exit_code} (--env sets what it needs, --smoke says what to run it with)"
    if before.exit_code is not None and promises:
        return f"the original exposes {promises}, but ends with {before.exit_code} before it answers (--env sets what it needs)"
    if before.exit_code is None and promises and not before.ports:
        return f"the original exposes {promises}, but listens on no port (--wait gives it more time)"
    if any(answer.status >= 500 for answer in before.answers):
        bad = next(answer for answer in before.answers if answer.status >= 500)
        return f"the original answers {bad.question} with {bad.status} (--http names another path, --env sets what it needs)"
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
    steady = set(before.ports) & set(again.ports if again is not None else before.ports)
    more = {port for port in after.ports if port not in before.ports and port.number < _EPHEMERAL}
    if more or steady - set(after.ports):
        yield f"it listens on {_listed(after.ports)}; the original on {_listed(before.ports)}"
    if compares_body and before.written != after.written:
        yield from _lines_differ("its output", before.written, after.written, again.written if again else before.written)
    second = {(a.port, a.path): a for a in again.answers} if again is not None else {}
    for old, new in _pairs(before.answers, after.answers):
        if new is None:
            continue  # the port differs: said above
        other = second.get((old.port, old.path), old)
        moves = old.location if old.location == other.location else old.location.partition("?")[0]
        moved = new.location if old.location == other.location else new.location.partition("?")[0]
        if (old.status, moves) != (new.status, moved):
            yield f"{old.question}: {_answered(new)}; the original: {_answered(old)}{_said(after)}"
        elif compares_body and old.body != new.body:
            yield from _lines_differ(f"{old.question}: the body", _text(old), _text(new), _text(other))
    if before.health and not after.health:
        yield f"its health check fails{_said(after)}"
    limit = None if before.stop_seconds is None else before.stop_seconds + _SLOWER
    if after.stop_seconds is not None and limit is not None and after.stop_seconds > limit:
        yield f"it stops after {after.stop_seconds:.1f} s; the original after {before.stop_seconds:.1f} s"


def may_vary(before: Behaviour, after: Behaviour) -> bool:
    """Whether they differ in what an original may do otherwise at each start: bodies, redirects, output, ports."""
    if before.written != after.written or before.ports != after.ports:
        return True
    pairs = ((old, new) for old, new in _pairs(before.answers, after.answers) if new is not None)
    return any((old.body, old.location) != (new.body, new.location) for old, new in pairs if old.status == new.status)


def works(before: Behaviour, after: Behaviour) -> bool:
    """Whether it ends, listens and answers with the same statuses."""
    statuses = [[answer.status for answer in found.answers] for found in (before, after)]
    listens = {port for port in before.ports if port.number < _EPHEMERAL} <= set(after.ports)
    return not after.problem and before.exit_code == after.exit_code and listens and statuses[0] == statuses[1]


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
    """The body in pieces: lines, and what stands between the marks of JSON and HTML, which may be one line."""
    text = answer.body.decode("utf-8", "backslashreplace")
    return tuple(piece for piece in _PIECES.split(text) if piece.strip())[:_KEPT_LINES]


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


def summary(behaviour: Behaviour, patience: Patience = USUAL) -> str:
    """What it did, in one line, watched with such patience."""
    if behaviour.smoke is not None:
        return f"`{behaviour.smoke}` ends with {behaviour.exit_code}, {len(behaviour.written)} lines"
    if behaviour.exit_code is not None:
        return f"ends with {behaviour.exit_code}"
    said = [f"{a.question} {a.status}, {len(a.body)} bytes" for a in behaviour.answers if a.status]
    if said and all(400 <= answer.status < 500 for answer in behaviour.answers if answer.status):
        said.append("nothing but refusals was compared: --http names a path that it serves")
    if not behaviour.ports:
        said.append(f"runs for {patience.quiet:.0f} s, without a port to ask")
    said += [f"listens on {_listed(behaviour.ports)}"] if not said and behaviour.ports else []
    said += ["healthy" if behaviour.health else "unhealthy, as the original"] if behaviour.health is not None else []
    if behaviour.stop_seconds is not None:
        said.append(
            f"stops in {behaviour.stop_seconds:.1f} s" + (" (killed)" if behaviour.stop_seconds >= patience.stop else "")
        )
    return "; ".join(said)
