"""A proof from end to end against the stand-in: what is proven, what fails, what cannot be compared, what is measured."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from optimizer import batch
from optimizer.verify import proof as proofs
from optimizer.verify.commands import BuilderError
from optimizer.verify.difference import Area
from optimizer.verify.proof import Layer, Proof, Verdict, nothing_to_prove, prove
from optimizer.verify.scan import Scan
from optimizer.verify.session import Session, append
from tests.proof.fake import is_alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.proof.fake import Fake

NAIVE = 'FROM debian:12\nMAINTAINER Jane\nADD src /src\nEXPOSE 8000\nCMD ["serve"]\n'
ALL = ("use-slim-base", "add-to-copy", "replace-maintainer")
ORIGINAL, CANDIDATE, FAILED = "MAINTAINER", "LABEL maintainer", Verdict.FAILED


@pytest.fixture
def project(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a naive Dockerfile, as the current one, whose image serves one page."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x").write_text("1")
    (tmp_path / "Dockerfile").write_text(NAIVE)
    monkeypatch.chdir(tmp_path)
    fake.when(
        "",
        ports=[8000],
        serves={"/": [200, "hello"]},
        config={"ExposedPorts": {"8000/tcp": {}}, "Cmd": ["serve"]},
        base_files={"/usr/local/bin/": "", "/usr/local/bin/tool": {"text": "#!/bin/sh\n", "mode": 0o755}},
        files={"/src/": "", "/src/x": "1"},
    )
    fake.when(CANDIDATE, config={"Labels": {"maintainer": "Jane"}}, size=60_000_000)
    return tmp_path


@pytest.fixture
def run(project: Path, fake: Fake) -> Callable[..., Proof]:
    """Verify the project's Dockerfile with such options; afterwards nothing is left of it."""

    def ran(*, drops: bool = False, said: list[str] | None = None, **options: Any) -> Proof:
        result = batch.fix_file(project / "Dockerfile", {"unsafe": True, "verify": options})
        with Session(result.settings.verify, (said if said is not None else []).append, fake.commands()) as session:
            found = prove(session, result, drops=drops)
        assert fake.containers == []
        assert fake.images == []
        assert list((fake.state.parent / "tmp").iterdir()) == []
        assert (project / "src" / "x").read_text() == "1"
        return found

    return ran


def said(found: Proof) -> list[tuple[Area, str]]:
    return [(failure.area, failure.what) for failure in found.failures]


def applied(found: Proof) -> tuple[str, ...]:
    return tuple(rewrite.name for rewrite in found.outcome.applied)


def dropped(found: Proof) -> list[str]:
    return [one.rewrite.name for one in found.dropped]


# -------------------------------------------------------------------- proven


def test_what_stays_the_same_is_proven(run: Callable[..., Proof], fake: Fake) -> None:
    found = run()
    assert found.verdict is Verdict.PROVEN
    assert applied(found) == ALL
    assert found.settles
    assert found.failures == ()
    assert [(d.by, d.what) for d in found.differences] == [("replace-maintainer", "Labels maintainer: not set -> Jane")]
    assert found.behaviours is not None
    assert [[a.body for a in ran.answers] for ran in found.behaviours] == [[b"hello"], [b"hello"]]
    assert found.builder == "Docker 27.3.1"
    assert 0 < found.build_seconds < found.seconds
    builds = fake.called("buildx", "build")
    assert ["--no-cache" in call for call in builds] == [True, True]


def test_what_is_measured(run: Callable[..., Proof], fake: Fake) -> None:
    status = "Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: install ok installed\n"
    files = {"/var/lib/dpkg/status": status, "/usr/local/big": "12345678"}
    fake.when("", base_files=files, files={"/src/x": "1", "/usr/local/big": "1"})
    fake.when(CANDIDATE, base_files={}, history=[["base", 40_000_000], ["COPY src /src # buildkit", 1], ["CMD", 0]])
    fake.change(bases={"debian:12-slim": ["sha256:base"]})
    found = run(edit="src/x")
    before, after = found.before, found.after
    assert before is not None
    assert after is not None
    assert (before.size, after.size) == (100_000_000, 60_000_000)
    assert (before.packages, after.packages) == (2, None)
    assert (before.wasted, after.wasted) == (8, 0)
    assert [layer.is_of_base for layer in before.layers] == [True, False]
    assert after.layers == (Layer("base", 40_000_000, is_of_base=True), Layer("COPY src /src # buildkit", 1))
    assert before.cold_seconds is not None
    assert (before.steps, before.total) == (1, 1)
    assert (after.steps, after.total) == (1, 1)
    assert after.edit_seconds is not None
    assert found.edited == "src/x"
    assert (before.scan, after.scan) == (None, None)


def test_an_edit_runs_only_what_depends_on_it(run: Callable[..., Proof], project: Path, fake: Fake) -> None:
    (project / "Dockerfile").write_text(NAIVE.replace("ADD", "RUN make tools\nWORKDIR /src\nADD"))
    found = run(edit="src/x")
    assert found.before is not None
    assert (found.before.steps, found.before.total) == (1, 3)
    edits = [call for call in fake.called("buildx", "build") if "--no-cache" not in call]
    assert len(edits) == 2
    assert all(call[-1].endswith("/edited") for call in edits)


def test_a_build_after_an_edit_that_fails_is_not_measured(run: Callable[..., Proof], fake: Fake) -> None:
    fake.reply("buildx", "build", having="-again -f", code=1, out="broken")
    found = run(edit="src/x")
    assert found.verdict is Verdict.PROVEN
    assert found.before is not None
    assert (found.before.steps, found.before.edit_seconds) == (None, None)


def test_scanners_count_both_images(run: Callable[..., Proof], fake: Fake) -> None:
    fake.install("syft")
    fake.reply(program="syft", out='{"artifacts": [1, 2]}')
    found = run(scan=True)
    assert found.before is not None
    assert found.after is not None
    assert found.before.scan == found.after.scan == Scan("syft", 2)


@pytest.mark.parametrize(
    ("cannot", "hints"),
    [
        ([], {"read-only": True, "no capabilities": True}),
        (["--read-only"], {"read-only": False, "no capabilities": True}),
        (["--read-only", "--cap-drop"], {"read-only": False, "no capabilities": False}),
    ],
)
def test_hints_say_what_the_image_could_bear(
    run: Callable[..., Proof], fake: Fake, cannot: list[str], hints: dict[str, bool]
) -> None:
    fake.when(CANDIDATE, cannot=cannot)
    found = run()
    assert found.verdict is Verdict.PROVEN
    assert found.hints == hints


def test_a_hint_that_says_that_it_does_not_work_was_tried(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when(CANDIDATE, cannot_together=["--read-only", "--cap-drop"])
    assert run().hints == {"read-only": True, "no capabilities": True}


def test_progress_is_told(run: Callable[..., Proof]) -> None:
    heard: list[str] = []
    run(said=heard)
    assert heard[0] == "building the original"
    assert "building the rewritten image: COPY src /src" in heard
    assert "running the images" in heard


@pytest.mark.parametrize(
    ("body", "compared", "failures"),
    [
        ("hello\n{start}", True, []),
        ("{start}", True, [(Area.BEHAVIOUR, 'GET :8000/: the body lacks "hello"')]),
        ("{start}", False, []),
    ],
)
def test_only_what_the_original_always_answers_is_compared(
    run: Callable[..., Proof], fake: Fake, body: str, failures: list[tuple[Area, str]], *, compared: bool
) -> None:
    fake.when("", serves={"/": [200, "hello\n{start}"]})
    fake.when(CANDIDATE, serves={"/": [200, body]})
    assert said(run(body=compared)) == failures


def test_a_smoke_command_settles_it(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when("", smoke=[0, "ok {now}\ndone"])
    assert run(smoke="check").verdict is Verdict.PROVEN
    assert not fake.called("run", "-d")
    fake.when(CANDIDATE, smoke=[0, "ok {now}"])
    assert said(run(smoke="check")) == [(Area.BEHAVIOUR, 'its output lacks "done"')]


def test_a_file_in_which_nothing_changes_needs_no_builder(project: Path, fake: Fake) -> None:
    (project / "Dockerfile").write_text("FROM debian:12-slim\nRUN true\n")
    found = nothing_to_prove(batch.fix_file(project / "Dockerfile", {}))
    assert found is not None
    assert (found.verdict, found.reason, found.settles) == (Verdict.NOTHING, "nothing to rewrite", True)
    (project / "Dockerfile").write_text(NAIVE)
    assert nothing_to_prove(batch.fix_file(project / "Dockerfile", {})) is None
    (project / "Dockerfile").write_text("FRM x\n")
    assert nothing_to_prove(batch.fix_file(project / "Dockerfile", {})) is None
    assert fake.calls == []


# -------------------------------------------------------------------- failed

FAILURES: list[tuple[dict[str, Any], Area, str]] = [
    ({"exits": 1, "logs": ["no module"]}, Area.BEHAVIOUR, "it ends with 1; the original keeps running (no module)"),
    ({"serves": {"/": [404, "hello"]}}, Area.BEHAVIOUR, "GET :8000/: 404; the original: 200"),
    ({"serves": {"/": [200, "bye"]}}, Area.BEHAVIOUR, 'GET :8000/: the body lacks "hello"'),
    (
        {"starts": "no such program"},
        Area.BEHAVIOUR,
        "it cannot be started: docker: Error response from daemon: no such program",
    ),
    ({"config": {"Cmd": ["/bin/sh"]}}, Area.CONFIG, "Cmd: ['serve'] -> ['/bin/sh']"),
    ({"config": {"User": "nobody"}}, Area.CONFIG, "User: not set -> nobody"),
    ({"config": {"ExposedPorts": {"8000/tcp": {}, "9/udp": {}}}}, Area.CONFIG, "ExposedPorts 9/udp: not set -> "),
    ({"config": {"Volumes": {"/data": {}}}}, Area.CONFIG, "Volumes /data: not set -> "),
    ({"files": {"/src/": ""}}, Area.FILES, "missing: /src/x"),
    ({"files": {"/src/": "", "/src/x": {"text": "1", "mode": 0o600}}}, Area.FILES, "mode 644 -> 600: /src/x"),
    ({"files": {"/src/": "", "/src/x": {"text": "1", "uid": 7}}}, Area.FILES, "owner 0:0 -> 7:0: /src/x"),
    ({"files": {"/src/": "", "/src/x": "2"}}, Area.FILES, "other contents than the build context has: /src/x"),
    ({"fails": "E: Unable to locate package"}, Area.BUILD, "it does not build"),
]


@pytest.mark.parametrize(("image", "area", "what"), FAILURES, ids=[what for _, _, what in FAILURES])
def test_what_no_rewrite_announces_is_a_failure(
    run: Callable[..., Proof], fake: Fake, image: dict[str, Any], area: Area, what: str
) -> None:
    fake.when(CANDIDATE, **image)
    found = run()
    assert found.verdict is Verdict.FAILED
    assert said(found) == [(area, what)]
    assert applied(found) == ALL
    assert found.settles
    if area in (Area.BEHAVIOUR, Area.BUILD):
        assert found.hints == {}


def test_the_log_of_a_build_that_fails_is_kept(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when(CANDIDATE, fails="E: Unable to locate package")
    found = run()
    assert "E: Unable to locate package" in found.log
    assert (found.after, found.behaviours) == (None, None)
    assert found.before is not None


def test_a_base_of_the_rewritten_image_that_cannot_be_had_is_said(run: Callable[..., Proof], fake: Fake) -> None:
    pull = "[internal] load metadata for docker.io/library/debian:12-slim"
    fake.when("12-slim", says=[f"#2 {pull}", "#2 ERROR: docker.io/library/debian:12-slim: not found"], fails="x")
    assert [what for _, what in said(run())] == ["docker.io/library/debian:12-slim cannot be pulled: not found"]


def test_a_health_check_that_fails_only_in_the_new_image(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when("", config={"Healthcheck": {"Test": ["CMD", "check"]}})
    fake.when(CANDIDATE, health=1, logs=["x"])
    assert said(run()) == [(Area.BEHAVIOUR, "its health check fails (x)")]


# -------------------------------------------------------------------- not comparable


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        ({"fails": "make: *** no rule"}, {}, "the original does not build"),
        ({"exits": 1, "logs": ["no DATABASE_URL"]}, {}, "exposes 8000, but ends with 1 before it answers"),
        ({"ports": []}, {"wait": 40.0}, "exposes 8000, but listens on no port"),
        ({"starts": "no such program"}, {}, "the original cannot be started: docker: Error response"),
        ({"smoke": [3, "out"]}, {"smoke": "check"}, "`check` ends with 3 in the original"),
    ],
)
@pytest.mark.parametrize("drops", [False, True])
def test_of_an_original_that_does_not_work_nothing_is_claimed(
    run: Callable[..., Proof], fake: Fake, image: dict[str, Any], options: dict[str, Any], words: str, *, drops: bool
) -> None:
    fake.when(ORIGINAL, **image)
    found = run(drops=drops, **options)
    assert found.verdict is Verdict.NOT_COMPARABLE
    assert words in found.reason
    assert not found.settles
    assert (found.differences, found.before, found.after, found.dropped) == ((), None, None, ())
    assert found.log == tuple(image.get("logs", found.log))


def test_an_original_that_does_not_build_costs_one_build(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when(ORIGINAL, fails="make: *** no rule")
    assert "make: *** no rule" in run().log
    assert len(fake.called("buildx", "build")) == 1
    assert not fake.called("run")


def test_a_base_of_the_original_that_cannot_be_had_is_an_error(run: Callable[..., Proof], fake: Fake) -> None:
    pull = "#2 [internal] load metadata for docker.io/library/debian:12"
    fake.when(ORIGINAL, says=[pull, "#2 ERROR: no route to host"], fails="x")
    with pytest.raises(BuilderError, match=r"docker.io/library/debian:12 cannot be pulled: no route to host$"):
        run()


# -------------------------------------------------------------------- leaving out


@pytest.mark.parametrize(
    ("text", "image", "guilty"),
    [
        ("COPY src", {"fails": "x"}, "add-to-copy"),
        ("12-slim", {"exits": 1, "logs": ["no libssl"]}, "use-slim-base"),
        ("LABEL maintainer", {"config": {"User": "7"}}, "replace-maintainer"),
        ("COPY src", {"files": {}}, "add-to-copy"),
    ],
)
def test_the_guilty_rewrite_is_left_out_and_the_others_are_proven(
    run: Callable[..., Proof], fake: Fake, text: str, image: dict[str, Any], guilty: str
) -> None:
    fake.when(text, **image)
    found = run(drops=True)
    assert found.verdict is Verdict.PROVEN
    assert dropped(found) == [guilty]
    assert applied(found) == tuple(name for name in ALL if name != guilty)
    assert text not in found.outcome.after.source.text
    assert found.failures == ()
    assert found.dropped[0].failures
    assert found.after is not None
    assert found.after.cold_seconds is not None


def test_the_log_goes_with_what_was_left_out(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when("12-slim", exits=1, logs=["no libssl"])
    assert run(drops=True).dropped[0].log == ("no libssl",)


def test_without_leave_nothing_is_left_out(run: Callable[..., Proof], fake: Fake) -> None:
    fake.when("COPY src", fails="x")
    found = run(drops=False)
    assert (found.verdict, found.dropped, len(fake.called("buildx", "build"))) == (Verdict.FAILED, (), 2)


def test_where_no_rewrite_holds_the_original_stays(run: Callable[..., Proof], fake: Fake) -> None:
    for text in ("COPY src", "12-slim", "LABEL maintainer"):
        fake.when(text, fails="x")
    found = run(drops=True)
    assert (found.verdict, found.reason) == (Verdict.NOTHING, "no rewrite holds")
    assert sorted(dropped(found)) == sorted(ALL)
    assert not found.outcome.is_changed
    assert found.settles


def test_what_holds_in_the_search_and_not_in_the_end_is_no_proof(run: Callable[..., Proof], fake: Fake) -> None:
    # the last, cold build of what holds fails, though it held before
    fake.when("12-slim", fails="x")
    fake.reply("buildx", "build", having="--no-cache", after=2, code=1, out="flaky")
    found = run(drops=True)
    assert found.verdict is Verdict.FAILED
    assert dropped(found) == ["use-slim-base"]
    assert found.log == ("flaky",)


# -------------------------------------------------------------------- errors of the builder, and what is left of a session


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"fails": "write /x: no space left on device"}, "the builder's disk is full"),
        ({"hangs": True}, "took longer than"),
    ],
)
def test_an_error_of_the_builder_ends_all_and_clears_up(project: Path, fake: Fake, image: dict[str, Any], words: str) -> None:
    fake.when(CANDIDATE, **image)
    result = batch.fix_file(project / "Dockerfile", {"unsafe": True, "verify": {"timeout": 100.0}})
    with pytest.raises(BuilderError, match=words), Session(result.settings.verify, lambda _: None, fake.commands()) as session:
        prove(session, result, drops=True)
    assert (fake.containers, fake.images) == ([], [])
    assert list((fake.state.parent / "tmp").iterdir()) == []


@pytest.mark.processes
def test_a_build_that_hangs_leaves_no_process(project: Path, fake: Fake) -> None:
    fake.when(CANDIDATE, hangs=True)
    result = batch.fix_file(project / "Dockerfile", {"unsafe": True, "verify": {"timeout": 3.0}})
    with pytest.raises(BuilderError, match="took longer than 3 s"), Session(result.settings.verify, lambda _: None) as session:
        prove(session, result, drops=True)
    assert len(fake.hung) == 2
    assert until(lambda: not any(map(is_alive, fake.hung)))
    assert (fake.containers, fake.images) == ([], [])
    assert list((fake.state.parent / "tmp").iterdir()) == []


def test_what_earlier_runs_left_is_cleared_and_what_others_run_is_not(run: Callable[..., Proof], fake: Fake) -> None:
    fake.add_container("left", f"{os.uname().nodename}/99999999/1/1")
    fake.add_container("other", f"elsewhere/1/1/{int(time.time())}")
    with pytest.raises(AssertionError, match="other"):
        run()
    assert fake.containers == ["other"]


def test_an_edited_file_is_another_file_than_the_authors(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    (tmp_path / "a").chmod(0o750)
    os.link(tmp_path / "a", tmp_path / "b")
    append(tmp_path / "b", "\n")
    assert (tmp_path / "a").read_text() == "text"
    assert (tmp_path / "b").read_text() == "text\n"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_where_files_cannot_be_linked_they_are_copied(run: Callable[..., Proof], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    found = run(edit="src/x")
    assert found.before is not None
    assert found.before.steps == 1


def test_what_is_ignored_is_not_copied_for_the_edit(run: Callable[..., Proof], project: Path, fake: Fake) -> None:
    (project / ".dockerignore").write_text("secret\n")
    (project / "secret").write_text("1")
    (project / "link").symlink_to("nowhere")
    assert run(edit="src/x").verdict is Verdict.PROVEN
    edits = [build["files"] for build in fake.contexts if build["tag"].endswith("-again")]
    assert len(edits) == 2
    assert all("src/x" in files and "secret" not in files for files in edits)


def test_an_edit_with_an_absolute_path_never_touches_the_authors_file(run: Callable[..., Proof], project: Path) -> None:
    run(edit=str(project / "src" / "x"))


def test_an_edit_with_a_path_that_climbs_out_touches_nothing(run: Callable[..., Proof], fake: Fake) -> None:
    (fake.state.parent / "tmp" / "mine").write_text("1")
    with contextlib.suppress(BuilderError, AssertionError):
        run(edit="../../mine")
    assert (fake.state.parent / "tmp" / "mine").read_text() == "1"


def test_an_edit_below_a_linked_folder_never_touches_the_authors_file(
    run: Callable[..., Proof], project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "y").write_text("1")
    (project / "linked").symlink_to(outside)
    with contextlib.suppress(BuilderError):
        run(edit="linked/y")
    assert (outside / "y").read_text() == "1"


def test_an_edit_of_a_file_that_is_not_there_is_one_line(run: Callable[..., Proof]) -> None:
    with pytest.raises(BuilderError, match="nowhere"):
        run(edit="src/nowhere")


def test_the_hints_are_those_that_the_reports_know() -> None:
    from optimizer.report.proof_rows import _HINTS

    assert list(proofs.HINTS) == list(_HINTS)
    assert {name: " ".join(words) for name, words in proofs.HINTS.items()} == {name: how for name, (_, how) in _HINTS.items()}
