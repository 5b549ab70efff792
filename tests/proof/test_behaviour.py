"""What an image does when it is started: what counts as different, as not comparable, as working, and what is seen of it."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from optimizer.settings import Verify
from optimizer.verify import behaviour
from optimizer.verify.behaviour import (
    Answer,
    Behaviour,
    Observer,
    differences,
    may_vary,
    summary,
    why_not_comparable,
    works,
)
from optimizer.verify.builders import choose
from optimizer.verify.commands import BuilderError, StoppedError
from optimizer.verify.containers import Port
from optimizer.verify.images import ImageConfig
from optimizer.verify.patience import USUAL, Patience

if TYPE_CHECKING:
    from tests.proof.fake import Fake

MARK = "host/1/2/3"
WEB = Behaviour(ports=(Port(80),), answers=(Answer(80, "/", 200, "", b"hello\nworld\n"),), health=True, stop_seconds=0.5)
SMOKE = Behaviour(exit_code=0, output=("one", "two"), written=("one", "two"), smoke="check")


def config(*ports: int, **more: Any) -> ImageConfig:
    return ImageConfig({"ExposedPorts": {f"{port}/tcp": {} for port in ports}, **more}, 1, ())


def answering(status: int = 200, body: bytes = b"", location: str = "") -> Behaviour:
    return replace(WEB, answers=(Answer(80, "/", status, location, body),))


def found(before: Behaviour, after: Behaviour, again: Behaviour | None = None, *, body: bool = True) -> list[str]:
    return list(differences(before, after, again, compares_body=body))


# -------------------------------------------------------------------- differences


@pytest.mark.parametrize("same", [WEB, SMOKE, Behaviour(exit_code=3), Behaviour()])
def test_the_same_differs_in_nothing(same: Behaviour) -> None:
    assert found(same, same) == []
    assert not may_vary(same, same)
    assert works(same, same)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (WEB, replace(WEB, problem="no such program"), "it cannot be started: no such program"),
        (WEB, Behaviour(exit_code=1), "it ends with 1; the original keeps running"),
        (WEB, Behaviour(exit_code=1, output=("a", "why ")), "it ends with 1; the original keeps running (why)"),
        (Behaviour(exit_code=0), Behaviour(exit_code=2), "it ends with 2; the original ends with 0"),
        (Behaviour(exit_code=0), Behaviour(), "it keeps running; the original ends with 0"),
        (WEB, replace(WEB, ports=()), "it listens on no port; the original on 80"),
        (WEB, replace(WEB, ports=(Port(80, is_local=True),)), "it listens on 127.0.0.1:80; the original on 80"),
        (WEB, replace(WEB, ports=(Port(80), Port(81))), "it listens on 80, 81; the original on 80"),
        (answering(200), answering(404), "GET :80/: 404; the original: 200"),
        (answering(404), answering(200), "GET :80/: 200; the original: 404"),
        (answering(200), answering(0), "GET :80/: no HTTP; the original: 200"),
        (answering(302, location="/a"), answering(302, location="/b"), "GET :80/: 302 to /b; the original: 302 to /a"),
        (answering(302, location="/a"), answering(301, location="/a"), "GET :80/: 301 to /a; the original: 302 to /a"),
        (answering(302, location="/a"), answering(302), "GET :80/: 302; the original: 302 to /a"),
        (answering(200, b"a\nb"), answering(200, b"a\nc"), 'GET :80/: the body lacks "b"'),
        (answering(200, b"a\nb"), answering(200, b"b\na"), 'GET :80/: the body lacks "b"'),
        (answering(200, b"a\na"), answering(200, b"a"), 'GET :80/: the body lacks "a"'),
        (answering(200, b"a"), answering(200, b"a\nb"), 'GET :80/: the body has "b" more'),
        (answering(200, b"a"), answering(200, b""), 'GET :80/: the body lacks "a"'),
        (answering(200, b"\xff"), answering(200, b"\xfe"), 'GET :80/: the body lacks "\\xff"'),
        (WEB, replace(WEB, health=False), "its health check fails"),
        (WEB, replace(WEB, health=None), "its health check fails"),
        (WEB, replace(WEB, stop_seconds=2.6), "it stops after 2.6 s; the original after 0.5 s"),
        (SMOKE, replace(SMOKE, exit_code=1), "it ends with 1; the original ends with 0 (two)"),
        (SMOKE, replace(SMOKE, written=("one",)), 'its output lacks "two"'),
        (SMOKE, replace(SMOKE, written=("one", "two", "three")), 'its output has "three" more'),
    ],
)
def test_what_differs_is_said_in_one_line(before: Behaviour, after: Behaviour, said: str) -> None:
    assert found(before, after) == [said]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WEB, replace(WEB, stop_seconds=2.4)),
        (WEB, replace(WEB, stop_seconds=None)),
        (replace(WEB, stop_seconds=None), replace(WEB, stop_seconds=9.0)),
        (WEB, replace(WEB, stop_seconds=0.0)),
        (replace(WEB, health=False), replace(WEB, health=True)),
        (replace(WEB, health=False), replace(WEB, health=False)),
        (replace(WEB, health=None), replace(WEB, health=True)),
        (WEB, replace(WEB, ready_seconds=20.0, output=("other",))),
    ],
)
def test_what_is_no_worse_is_no_difference(before: Behaviour, after: Behaviour) -> None:
    assert found(before, after) == []


def test_without_bodies_only_statuses_count() -> None:
    assert found(answering(200, b"a"), answering(200, b"b"), body=False) == []
    assert found(SMOKE, replace(SMOKE, written=()), body=False) == []
    assert len(found(answering(200, b"a"), answering(404, b"a"), body=False)) == 1
    assert len(found(SMOKE, replace(SMOKE, exit_code=1), body=False)) == 1


def test_an_answer_of_a_port_that_is_gone_is_said_once() -> None:
    after = replace(WEB, ports=(Port(81),), answers=(Answer(81, "/", 200, "", b"hello\nworld\n"),))
    assert found(WEB, after) == ["it listens on 81; the original on 80"]


def test_every_question_is_compared() -> None:
    before = replace(WEB, answers=tuple(Answer(80, path, 200) for path in ("/", "/a", "/b")))
    after = replace(WEB, answers=(Answer(80, "/b", 500), Answer(80, "/", 200), Answer(80, "/a", 404)))
    assert found(before, after) == ["GET :80/a: 404; the original: 200", "GET :80/b: 500; the original: 200"]


# -------------------------------------------------------------------- bodies that change by themselves

FIRST = b"<html>\ntoken 1\nhello\nat 10:00\n</html>"
SECOND = b"<html>\ntoken 2\nhello\nat 10:01\n</html>"


def test_lines_that_the_original_changes_itself_are_not_compared() -> None:
    after = answering(200, b"<html>\ntoken 3\nhello\nat 10:02\n</html>")
    assert found(answering(200, FIRST), after, answering(200, SECOND)) == []


@pytest.mark.parametrize(
    "body",
    [b"<html>\ntoken 3\nat 10:02\n</html>", b"<html>\ntoken 3\nHello\nat 10:02\n</html>", b"hello\n<html>\ntoken 3\n</html>"],
)
def test_lines_that_the_original_always_has_are_compared(body: bytes) -> None:
    assert found(answering(200, FIRST), answering(200, body), answering(200, SECOND)) == ['GET :80/: the body lacks "hello"']


def test_one_line_that_always_changes_says_nothing() -> None:
    assert found(answering(200, b"1"), answering(200, b"3"), answering(200, b"2")) == []


def test_of_a_second_start_that_answers_otherwise_nothing_is_taken() -> None:
    before, again = answering(200, b"a\nb"), replace(WEB, answers=())
    assert found(before, answering(200, b"a"), again) == ['GET :80/: the body lacks "b"']


def test_smoke_output_that_changes_by_itself() -> None:
    again = replace(SMOKE, written=("one", "2"))
    assert found(SMOKE, replace(SMOKE, written=("one", "3")), again) == []
    assert found(SMOKE, replace(SMOKE, written=("three",)), again) == ['its output lacks "one"']


@pytest.mark.parametrize(
    ("after", "differ"),
    [
        (answering(200, b"hello\nworld\n"), False),
        (answering(200, b"hello"), True),
        (answering(404, b"hello"), False),
        (replace(WEB, answers=()), False),
        (replace(WEB, answers=(Answer(81, "/", 200, "", b"x"),)), False),
    ],
)
def test_the_original_is_asked_again_only_where_that_may_settle_it(after: Behaviour, *, differ: bool) -> None:
    assert may_vary(WEB, after) == differ


def test_other_smoke_output_is_worth_a_second_look() -> None:
    assert may_vary(SMOKE, replace(SMOKE, written=("one",)))


# -------------------------------------------------------------------- not comparable


@pytest.mark.parametrize(
    ("before", "ports", "words"),
    [
        (Behaviour(problem="no such file"), (), "the original cannot be started: no such file"),
        (Behaviour(exit_code=1), (80,), "exposes 80, but ends with 1 before it answers (--env"),
        (Behaviour(exit_code=0), (80, 81), "exposes 80, 81, but ends with 0"),
        (Behaviour(), (80,), "exposes 80, but listens on no port (--wait"),
        (answering(500), (80,), "the original answers GET :80/ with 500"),
        (answering(503), (), "with 503"),
        (replace(SMOKE, exit_code=127), (), "`check` ends with 127 in the original"),
        (replace(SMOKE, problem="it broke"), (), "cannot be started: it broke"),
    ],
)
def test_of_an_original_that_does_not_work_nothing_is_claimed(before: Behaviour, ports: tuple[int, ...], words: str) -> None:
    assert words in (why_not_comparable(before, config(*ports)) or "")


@pytest.mark.parametrize(
    ("before", "ports"),
    [
        (WEB, (80,)),
        (WEB, ()),
        (answering(404), (80,)),
        (answering(0), (80,)),
        (Behaviour(exit_code=0), ()),
        (Behaviour(), ()),
        (replace(WEB, health=False), (80,)),
        (SMOKE, (80,)),
        (replace(WEB, ports=(Port(81),)), (80,)),
    ],
)
def test_what_can_be_compared(before: Behaviour, ports: tuple[int, ...]) -> None:
    assert why_not_comparable(before, config(*ports)) is None


def test_udp_promises_no_answer() -> None:
    udp = ImageConfig({"ExposedPorts": {"53/udp": {}}}, 1, ())
    assert why_not_comparable(Behaviour(), udp) is None
    assert "ends with 1" in (why_not_comparable(Behaviour(exit_code=1), udp) or "")


@pytest.mark.parametrize(
    "after",
    [
        replace(WEB, problem="no"),
        replace(WEB, exit_code=0),
        replace(WEB, ports=()),
        answering(500),
        replace(WEB, answers=()),
    ],
)
def test_what_does_not_work(after: Behaviour) -> None:
    assert not works(WEB, after)


def test_working_asks_for_no_body_and_no_health() -> None:
    assert works(WEB, replace(answering(200, b"other"), health=None, stop_seconds=None))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (WEB, "GET :80/ 200, 12 bytes; healthy; stops in 0.5 s"),
        (
            replace(WEB, health=False, stop_seconds=10.0),
            "GET :80/ 200, 12 bytes; unhealthy, as the original; stops in 10.0 s (killed)",
        ),
        (replace(answering(0), health=None, stop_seconds=None), "listens on 80"),
        (Behaviour(), "runs for 10 s, without a port to ask"),
        (Behaviour(exit_code=3), "ends with 3"),
        (SMOKE, "`check` ends with 0, 2 lines"),
    ],
)
def test_the_summary(what: Behaviour, said: str) -> None:
    assert summary(what) == said


# -------------------------------------------------------------------- watching a container


def watch(fake: Fake, *exposed: int, options: Verify | None = None, **image: Any) -> Behaviour:
    """What is seen of an image that is such. Nothing is left of its container."""
    seen, _ = timed(fake, *exposed, options=options, **image)
    return seen


def timed(fake: Fake, *exposed: int, options: Verify | None = None, **image: Any) -> tuple[Behaviour, float]:
    """The same, and how many seconds that took."""
    fake.add_image("x:1", MARK, **image)
    commands = fake.commands()
    observer = Observer(choose(commands, MARK), options or Verify(wait=5.0), "x:1")
    start = commands.now()
    seen = observer.observe("x:1", config(*exposed, **image.get("config", {})))
    assert fake.containers == []
    return seen, commands.now() - start


def test_a_server_answers_is_healthy_and_stops(fake: Fake) -> None:
    checked = {"Healthcheck": {"Test": ["CMD", "check", "-x"]}}
    seen = watch(fake, 8000, ports=[8000], serves={"/": [200, "hello"]}, logs=["started"], config=checked)
    assert seen.ports == (Port(8000),)
    assert seen.answers == (Answer(8000, "/", 200, "", b"hello"),)
    assert seen.exit_code is None
    assert seen.health is True
    assert seen.output == ("started",)
    assert seen.stop_seconds is not None
    assert seen.stop_seconds < 0.1
    assert fake.called("exec")[0][3:] == ["check", "-x"]
    assert fake.called("stop")
    assert fake.called("rm")


def test_every_path_is_asked_for_on_its_port(fake: Fake) -> None:
    serves = {"/": [200, "root"], "/a": [302, "", "/b"], "/only": [201, "only"]}
    options = Verify(wait=5.0, http=("/", "a", ":8001/only"))
    seen = watch(fake, 8000, 8001, ports=[8000, 8001], serves=serves, options=options)
    assert seen.answers == (
        Answer(8000, "/", 200, "", b"root"),
        Answer(8000, "/a", 302, "/b", b""),
        Answer(8001, "/", 200, "", b"root"),
        Answer(8001, "/a", 302, "/b", b""),
        Answer(8001, "/only", 201, "", b"only"),
    )


def test_only_exposed_ports_are_asked_where_there_are_any(fake: Fake) -> None:
    seen = watch(fake, 8000, ports=[8000, 20_123], serves={"/": [200, "x"]})
    assert [answer.port for answer in seen.answers] == [8000]
    assert seen.ports == (Port(8000), Port(20_123))


def test_a_port_that_speaks_no_http_is_asked_once(fake: Fake) -> None:
    options = Verify(wait=5.0, http=("/", "/a"))
    seen = watch(fake, 8000, 8001, ports=[8000, 8001], mute=[8000], serves={"/": [200, "x"]}, options=options)
    assert [(a.port, a.path, a.status) for a in seen.answers] == [(8000, "/", 0), (8001, "/", 200), (8001, "/a", 404)]


def test_an_error_of_the_server_is_waited_out_and_then_taken(fake: Fake) -> None:
    seen = watch(fake, 8000, ports=[8000], serves={"/": [503, "not yet"]})
    assert [answer.status for answer in seen.answers] == [503]
    assert USUAL.settle < seen.ready_seconds < USUAL.settle + 0.5


def test_a_program_that_ends_is_neither_asked_nor_stopped(fake: Fake) -> None:
    seen = watch(fake, 8000, exits=3, logs=["boom"])
    assert (seen.exit_code, seen.answers, seen.output) == (3, (), ("boom",))
    assert (seen.health, seen.stop_seconds) == (None, None)
    assert not fake.called("stop")


def test_a_program_that_cannot_be_started_is_a_problem(fake: Fake) -> None:
    assert watch(fake, starts="no such program").problem == "docker: Error response from daemon: no such program"
    assert len(fake.called("rm")) == 1


def test_a_program_that_promises_nothing_is_not_waited_for(fake: Fake) -> None:
    seen, seconds = timed(fake, options=Verify(wait=30.0))
    assert USUAL.quiet < seconds < USUAL.quiet + 1.0
    assert (seen.exit_code, seen.ports, seen.answers) == (None, (), ())


def test_a_promised_port_that_never_comes_is_given_up(fake: Fake) -> None:
    seen, seconds = timed(fake, 8000, options=Verify(wait=60.0))
    assert 60.0 < seconds < 61.0
    assert (seen.exit_code, seen.ports) == (None, ())
    assert "listens on no port" in (why_not_comparable(seen, config(8000)) or "")


def test_a_promised_path_is_waited_for_without_an_exposed_port(fake: Fake) -> None:
    _, seconds = timed(fake, options=Verify(wait=30.0, http=("/",)))
    assert 30.0 < seconds < 31.0


def test_the_ports_of_the_original_are_waited_for(fake: Fake) -> None:
    fake.add_image("x:1", MARK, ports=[8000], serves={"/": [200, "x"]})
    observer = Observer(choose(fake.commands(), MARK), Verify(wait=4.0), "x:1")
    like = replace(WEB, ports=(Port(8000), Port(8001)))
    seen = observer.observe("x:1", config(8000), like=like)
    assert (seen.ports, seen.answers) == ((Port(8000),), ())


def test_a_program_that_listens_elsewhere_is_not_waited_for_to_the_end(fake: Fake) -> None:
    fake.add_image("x:1", MARK, ports=[8001], serves={"/": [200, "x"]})
    commands = fake.commands()
    observer = Observer(choose(commands, MARK), Verify(wait=30.0), "x:1")
    start = commands.now()
    seen = observer.observe("x:1", config(8000, 8001), like=replace(WEB, ports=(Port(8000),)))
    assert USUAL.elsewhere < commands.now() - start < USUAL.elsewhere + 1.0
    assert (seen.ports, seen.answers) == ((Port(8001),), ())


def test_the_ports_that_the_kernel_picks_are_not_compared() -> None:
    ports = frozenset((Port(80), Port(40_000), Port(50_000)))
    assert behaviour._steady(tuple(sorted(ports)), config(80, 50_000)) == (Port(80), Port(50_000))


def test_a_health_check_that_fails_is_tried_again(fake: Fake) -> None:
    checked = {"Healthcheck": {"Test": ["CMD-SHELL", "check || exit 1"]}}
    seen = watch(fake, 8000, ports=[8000], serves={"/": [200, "x"]}, health=1, config=checked)
    assert seen.health is False
    assert len(fake.called("exec")) == 1 + USUAL.health / USUAL.health_pause
    assert all(call[3:] == ["/bin/sh", "-c", "check || exit 1"] for call in fake.called("exec"))


@pytest.mark.parametrize("test", [None, [], ["NONE"], ["CMD"]])
def test_without_a_health_check_there_is_no_health(fake: Fake, test: list[str] | None) -> None:
    checked = {"Healthcheck": {"Test": test}}
    assert watch(fake, 8000, ports=[8000], serves={"/": [200, "x"]}, config=checked).health is None
    assert not fake.called("exec")


def test_a_brief_look_asks_for_answers_alone(fake: Fake) -> None:
    checked = {"Healthcheck": {"Test": ["CMD", "check"]}}
    fake.add_image("x:1", MARK, ports=[8000], serves={"/": [200, "x"]})
    observer = Observer(choose(fake.commands(), MARK), Verify(wait=5.0, env=("A=1",)), "x:1")
    seen = observer.observe("x:1", config(8000, **checked), "--read-only", is_brief=True)
    assert [answer.status for answer in seen.answers] == [200]
    assert (seen.health, seen.stop_seconds) == (None, None)
    assert not fake.called("exec")
    assert not fake.called("stop")
    call = fake.called("run", "-d")[0]
    assert "--read-only" in call
    assert call[call.index("-e") + 1] == "A=1"


def test_a_program_that_ignores_the_signal_need_not_be_waited_for(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.verify.containers.Container.ignores", lambda _self, sign: sign == signal.SIGQUIT)
    image: dict[str, Any] = {"ports": [8000], "serves": {"/": [200, "x"]}}
    assert watch(fake, 8000, **image, config={"StopSignal": "SIGQUIT"}).stop_seconds == 10.0
    assert not fake.called("stop")
    assert watch(fake, 8000, **image).stop_seconds != 10.0
    assert len(fake.called("stop")) == 1


def test_a_body_that_changes_at_each_start_is_no_difference(fake: Fake) -> None:
    fake.add_image("x:1", MARK, ports=[8000], serves={"/": [200, "hello\n{start}\nbye"]})
    fake.add_image("bad:1", MARK, ports=[8000], serves={"/": [200, "hello\n{start}\nBYE"]})
    observer = Observer(choose(fake.commands(), MARK), Verify(wait=5.0), "x:1")
    first, second, third = (observer.observe("x:1", config(8000), is_brief=True) for _ in range(3))
    bad = observer.observe("bad:1", config(8000), is_brief=True)
    assert first.answers[0].body != second.answers[0].body
    assert may_vary(first, third)
    assert found(first, third, second) == []
    assert found(first, bad, second) == ['GET :8000/: the body lacks "bye"']


# -------------------------------------------------------------------- smoke


def test_a_smoke_command_is_run_instead(fake: Fake) -> None:
    options = Verify(smoke="check --name 'a b'", env=("A=1",), network="mine")
    fake.add_image("x:1", MARK, smoke=[0, "one\ntwo"])
    observer = Observer(choose(fake.commands(), MARK, network="mine"), options, "x:1")
    seen = observer.observe("x:1", config(8000), "--read-only")
    assert seen == replace(SMOKE, smoke=options.smoke, ready_seconds=seen.ready_seconds)
    call = fake.called("run")[0]
    assert call[-4:] == ["x:1", "check", "--name", "a b"]
    assert call[1:3] == ["run", "--rm"]
    assert {"--read-only", "--network", "mine", "-e", "A=1", f"dockeropt.verify={MARK}"} <= set(call)


def test_a_smoke_command_that_fails_is_compared_like_any_end(fake: Fake) -> None:
    seen = watch(fake, options=Verify(smoke="check"), smoke=[3, "out"], error="why")
    assert (seen.exit_code, seen.problem) == (3, "")


def test_a_smoke_command_that_docker_cannot_run_is_a_problem(fake: Fake) -> None:
    seen = watch(fake, options=Verify(smoke="check"), smoke=[125, ""], error="docker: no such image")
    assert seen.problem == "docker: no such image"
    assert why_not_comparable(seen, config()) == "the original cannot be started: docker: no such image"


# -------------------------------------------------------------------- nothing is left


def test_a_container_is_removed_whatever_happens(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_seconds: float) -> None:
        raise StoppedError("interrupted")

    commands = fake.commands()
    monkeypatch.setattr(commands, "sleep", refuse)
    fake.add_image("x:1", MARK)
    observer = Observer(choose(commands, MARK), Verify(wait=5.0), "x:1")
    with pytest.raises(StoppedError):
        observer.observe("x:1", config(8000))
    assert fake.called("run", "-d")
    assert fake.containers == []


def test_a_container_that_vanishes_is_an_error(fake: Fake) -> None:
    fake.reply("inspect", code=1, err="Error: No such object: x")
    with pytest.raises(BuilderError, match=r"the container dockeropt-verify-1-\w+-1 is gone: Error: No such object: x"):
        watch(fake, 8000, ports=[8000])


# -------------------------------------------------------------------- what an original does otherwise at each start


def test_one_line_of_json_is_compared_piece_by_piece() -> None:
    first, second = (answering(body=f'{{"time": {time}, "git": "ok"}}'.encode()) for time in (1, 2))
    good, bad = answering(body=b'{"time": 3, "git": "ok"}'), answering(body=b'{"time": 3, "git": "no"}')
    assert may_vary(first, good)
    assert found(first, good, second) == []
    assert len(found(first, bad, second)) == 1


def test_the_random_part_of_a_redirect_is_not_compared() -> None:
    first, second, third = (answering(302, location=f"/login?state={state}") for state in "abc")
    assert may_vary(first, third)
    assert found(first, third, second) == []
    assert len(found(first, answering(302, location="/error?state=d"), second)) == 1
    assert len(found(first, third)) == 1  # a redirect that the original repeats


def test_a_high_port_counts_where_the_original_opens_it_again() -> None:
    before, none = replace(WEB, ports=(Port(80), Port(50_051))), replace(WEB, ports=(Port(80),))
    assert len(found(before, none, before)) == 1
    assert found(before, replace(WEB, ports=(Port(80), Port(40_000))), none) == []


def test_what_is_written_to_the_end_is_compared() -> None:
    before = Behaviour(exit_code=0, written=("commits: 42",))
    after = replace(before, written=("no version control",))
    assert found(before, after) == ['its output lacks "commits: 42"']
    assert found(before, after, replace(before, written=("commits: 43",))) == []
    assert found(before, after, body=False) == []


@pytest.mark.parametrize("path", ["/x", ":81/", ":80/x"])
def test_a_path_that_nobody_answers_proves_nothing(path: str) -> None:
    assert why_not_comparable(WEB, config(80), ("/", path)) == f"the original does not answer {path}"
    assert why_not_comparable(WEB, config(80), ("/", ":80/")) is None


def test_refusals_alone_are_said_to_be_little() -> None:
    assert "nothing but refusals was compared" in summary(answering(404))
    assert "refusals" not in summary(answering(200))


def test_a_port_that_is_not_free_yet_is_waited_for(fake: Fake) -> None:
    commands = fake.commands(Patience(lingers=300.0))
    fake.add_image("x:1", MARK, exits=1, logs=["OSError: [Errno 98] Address already in use"])
    observer = Observer(choose(commands, MARK, network="host"), Verify(wait=5.0), "x:1")
    start = commands.now()
    assert observer.observe("x:1", config(8000)).exit_code == 1
    assert commands.now() - start == pytest.approx(300.0, abs=0.5)
    assert len([call for call in fake.called("run") if "-d" in call]) == 2


def test_on_a_network_of_its_own_a_port_is_never_taken(fake: Fake) -> None:
    seen, seconds = timed(fake, 8000, exits=1, logs=["OSError: [Errno 98] Address already in use"])
    assert seen.exit_code == 1
    assert seconds < 0.2
