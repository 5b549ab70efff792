"""`verify` and `fix --verify` at the command line: exit statuses, what is written, and the end when one is asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from optimizer.cli import app
from tests.proof.fake import free_port, is_alive, until

if TYPE_CHECKING:
    from tests.proof.fake import Fake

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "proof.schema.json").read_text())
NAIVE = 'FROM debian:12\nMAINTAINER Jane\nADD src /src\nEXPOSE 8000\nCMD ["serve"]\n'
BETTER = 'FROM debian:12-slim\nLABEL maintainer="Jane"\nCOPY src /src\nEXPOSE 8000\nCMD ["serve"]\n'
NOTHING_TO_DO = "FROM debian:12-slim\nRUN true\n"
ORIGINAL, CANDIDATE = "MAINTAINER", "LABEL maintainer"


@pytest.fixture
def project(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a naive Dockerfile, as the current one, whose image serves one page."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x").write_text("1")
    (tmp_path / "Dockerfile").write_text(NAIVE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optimizer.verify.session.Commands", fake.commands)
    fake.when("", ports=[8000], serves={"/": [200, "hello"]}, config={"ExposedPorts": {"8000/tcp": {}}}, files={"/src/x": "1"})
    fake.when(CANDIDATE, config={"Labels": {"maintainer": "Jane"}})
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def is_clear(fake: Fake) -> bool:
    """Whether nothing of a run is left."""
    is_gone = fake.containers == [] and fake.images == [] and not any(map(is_alive, fake.hung))
    return is_gone and list((fake.state.parent / "tmp").iterdir()) == []


# -------------------------------------------------------------------- verify


def test_a_proof_exits_with_0_and_writes_nothing(project: Path, fake: Fake) -> None:
    result = run("verify")
    assert result.exit_code == 0
    assert result.stdout.startswith("Dockerfile  proven: 3 rewrites hold  (Docker 27.3.1; ")
    assert "behaviour     same" in result.stdout
    assert "\x1b[" not in result.stdout
    assert (project / "Dockerfile").read_text() == NAIVE
    assert sorted(path.name for path in project.iterdir()) == ["Dockerfile", "src"]
    assert is_clear(fake)


def test_a_failure_exits_with_1(project: Path, fake: Fake) -> None:
    fake.when(CANDIDATE, exits=1, logs=["no module"])
    result = run("verify", "Dockerfile")
    assert result.exit_code == 1
    assert "not proven: 1 difference that no rewrite announces" in result.stdout
    assert "    it ends with 1; the original keeps running (no module)" in result.stdout
    assert (project / "Dockerfile").read_text() == NAIVE


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"fails": "make: *** no rule"}, "not comparable: the original does not build"),
        ({"exits": 1, "logs": ["make: *** no rule"]}, "not comparable: the original exposes 8000, but ends with 1"),
    ],
)
def test_what_cannot_be_compared_exits_with_2(project: Path, fake: Fake, image: dict[str, Any], words: str) -> None:
    fake.when(ORIGINAL, **image)
    result = run("verify")
    assert result.exit_code == 2
    assert words in result.stdout
    assert "    | make: *** no rule" in result.stdout
    assert (project / "Dockerfile").read_text() == NAIVE


@pytest.mark.parametrize(
    ("first", "code", "verdicts"), [({}, 1, ["proven", "failed"]), ({"fails": "x"}, 2, ["not comparable", "failed"])]
)
def test_the_worst_of_several_files_counts(
    project: Path, fake: Fake, first: dict[str, Any], code: int, verdicts: list[str]
) -> None:
    (project / "b.Dockerfile").write_text(NAIVE.replace("ADD src /src", "RUN other"))
    fake.when('LABEL maintainer="Jane"\nRUN other', exits=1)
    fake.when("MAINTAINER Jane\nADD", **first)
    result = run("verify", "--format", "json")
    found = [(proof["path"], proof["verdict"]) for proof in json.loads(result.stdout)["proofs"]]
    assert (result.exit_code, found) == (code, list(zip(["Dockerfile", "b.Dockerfile"], verdicts, strict=True)))


@pytest.mark.usefixtures("project")
def test_json_alone_goes_to_standard_output() -> None:
    result = run("verify", "--format", "json", "--edit", "src/x")
    assert result.exit_code == 0
    assert result.stderr == ""
    found = json.loads(result.stdout)
    jsonschema.validate(found, SCHEMA)
    assert found["proofs"][0]["before"]["steps"] == 1
    assert found["proofs"][0]["applied"] == ["use-slim-base", "add-to-copy", "replace-maintainer"]


@pytest.mark.parametrize(
    ("form", "first", "part", "last"),
    [
        ("markdown", "## Dockerfile\n\n**proven: 3 rewrites hold**", "| size | 100.0 MB |", "\n"),
        ("html", "<!doctype html>\n", '<span class="added">+COPY src /src</span>', "</html>\n"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_page_goes_to_standard_output(form: str, first: str, part: str, last: str) -> None:
    result = run("verify", "--format", form)
    assert result.exit_code == 0
    assert result.stdout.startswith(first)
    assert part in result.stdout
    assert result.stdout.endswith(last)


def test_where_nothing_is_rewritten_no_builder_is_needed(project: Path, fake: Fake) -> None:
    (project / "Dockerfile").write_text(NOTHING_TO_DO)
    fake.change(answers=False)
    result = run("verify")
    assert (result.exit_code, result.stdout.strip()) == (0, "Dockerfile  nothing to rewrite")
    assert fake.calls == []


def test_a_file_that_cannot_be_read_exits_with_2_after_the_others(project: Path) -> None:
    (project / "bad.Dockerfile").write_text("FRM x\n")
    result = run("verify", "--format", "json")
    assert result.exit_code == 2
    assert [proof["path"] for proof in json.loads(result.stdout)["proofs"]] == ["Dockerfile"]
    assert 'expected an instruction, found "FRM"' in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("verify", "-"), "takes files, not standard input"),
        (("fix", "--verify", "-"), "takes files, not standard input"),
        (("verify", "--format", "xml"), 'expected text, json, markdown or html, found "xml"'),
        (("fix", "--verify", "--format", "html"), 'expected text or json, found "html"'),
        (("verify", "--color", "red"), 'expected auto, always or never, found "red"'),
        (("verify", "nowhere"), "nowhere: expected a file or a folder"),
        (("verify", "--select", "merge-runs"), 'Did you mean "merge-run"?'),
        (("verify", "--builder", "podman"), "Dockerfile: podman: No such file or directory"),
        (("fix", "--verify", "-w", "--check"), "--write goes with neither"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_to_do(project: Path, fake: Fake, args: tuple[str, ...], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert (project / "Dockerfile").read_text() == NAIVE
    assert not fake.called("buildx", "build")


@pytest.mark.parametrize("command", [("verify",), ("fix", "--verify", "-w")])
def test_no_builder_is_one_line(project: Path, fake: Fake, command: tuple[str, ...]) -> None:
    fake.change(answers=False)
    result = run(*command)
    assert result.exit_code == 2
    assert result.stderr.startswith("Dockerfile: no builder answers: no Docker daemon answers (Cannot connect")
    assert result.stderr.count("\n") == 1
    assert (project / "Dockerfile").read_text() == NAIVE


@pytest.mark.usefixtures("project")
def test_a_smoke_command_that_no_shell_takes_is_one_line() -> None:
    result = run("verify", "--smoke", "check 'it")
    assert result.exit_code == 2
    assert "--smoke: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_that_is_no_utf8_is_shown_somehow(project: Path) -> None:
    (project / "Dockerfile").unlink()
    Path(os.fsdecode(b"a\xff.Dockerfile")).write_text(NOTHING_TO_DO)
    result = run("verify")
    assert (result.exit_code, result.stdout.strip()) == (0, "a?.Dockerfile  nothing to rewrite")


def test_options_and_settings_reach_the_builder(project: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".dockeropt.toml").write_text('[verify]\nhttp = ["/a"]\nnetwork = "none"\nenv = ["A=1"]\n')
    monkeypatch.setenv("DOCKEROPT_VERIFY_BUILD_ARGS", "B=2,C=3")
    port = free_port()  # on a network of its own, nothing is published
    fake.when("", ports=[port], serves={"/b": [200, "b"]}, config={"ExposedPorts": {f"{port}/tcp": {}}})
    result = run("verify", "--network", "mine", "--http", "/b", "--format", "json")
    assert [answer["path"] for answer in json.loads(result.stdout)["proofs"][0]["behaviour"][0]["answers"]] == ["/b"]
    build, start = fake.called("buildx", "build")[0], fake.called("run", "-d")[0]
    assert {"mine", "B=2", "C=3"} <= set(build)
    assert {"mine", "A=1"} <= set(start)
    assert "none" not in build + start


# -------------------------------------------------------------------- fix --verify


def test_what_is_proven_is_written(project: Path, fake: Fake) -> None:
    result = run("fix", "--verify", "-w")
    assert result.exit_code == 0
    assert (project / "Dockerfile").read_text() == BETTER
    assert "proven: 3 rewrites hold" in result.stderr
    assert result.stdout == ""
    assert is_clear(fake)


def test_without_write_the_proven_change_is_shown(project: Path) -> None:
    result = run("fix", "--verify")
    assert result.exit_code == 0
    assert "+COPY src /src" in result.stdout
    assert (project / "Dockerfile").read_text() == NAIVE


def test_the_guilty_rewrite_is_left_out_and_the_others_are_written(project: Path, fake: Fake) -> None:
    fake.when("COPY src", fails="E: it broke")
    result = run("fix", "--verify", "-w")
    assert result.exit_code == 0
    assert (project / "Dockerfile").read_text() == BETTER.replace("COPY", "ADD")
    assert "left out      add-to-copy: " in result.stderr
    assert "E: it broke" in result.stderr
    assert "proven: 2 rewrites hold" in result.stderr


def test_what_was_left_out_is_not_called_applied(project: Path, fake: Fake) -> None:
    fake.when("COPY src", fails="E: it broke")
    result = run("fix", "--verify", "--format", "json", str(project))
    applied = [rewrite["transform"] for rewrite in json.loads(result.stdout)["files"][0]["applied"]]
    assert applied == ["use-slim-base", "replace-maintainer"]


def test_where_no_rewrite_holds_nothing_is_written(project: Path, fake: Fake) -> None:
    for text in ("COPY src", "12-slim", CANDIDATE):
        fake.when(text, fails="x")
    result = run("fix", "--verify", "-w")
    assert result.exit_code == 0
    assert "no rewrite holds" in result.stderr
    assert (project / "Dockerfile").read_text() == NAIVE


@pytest.mark.parametrize("image", [{"fails": "x"}, {"exits": 1}])
def test_where_nothing_can_be_compared_nothing_is_written(project: Path, fake: Fake, image: dict[str, Any]) -> None:
    fake.when(ORIGINAL, **image)
    result = run("fix", "--verify", "-w")
    assert result.exit_code == 2
    assert "not comparable" in result.stderr
    assert (project / "Dockerfile").read_text() == NAIVE
    assert is_clear(fake)


@pytest.mark.parametrize(
    ("failing", "code"), [((), 1), (("COPY src",), 1), (("COPY src", "12-slim", CANDIDATE), 0), ((ORIGINAL,), 2)]
)
def test_check_asks_whether_something_proven_would_change(
    project: Path, fake: Fake, failing: tuple[str, ...], code: int
) -> None:
    for text in failing:
        fake.when(text, fails="x")
    assert run("fix", "--verify", "--check").exit_code == code
    assert (project / "Dockerfile").read_text() == NAIVE


def test_quiet_shows_the_diff_alone(project: Path) -> None:
    result = run("fix", "--verify", "-q", str(project))
    assert result.stderr == ""
    assert "+COPY" in result.stdout


@pytest.mark.usefixtures("fake")
def test_without_verify_no_process_is_started(project: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for name in ("system", "fork", "posix_spawn"):
        monkeypatch.setattr(os, name, refuse)
    assert run("fix", "--unsafe", "-w").exit_code == 0
    assert (project / "Dockerfile").read_text() == BETTER
    assert fake.calls == []


def test_a_companion_file_is_seen_by_the_build_and_written_only_when_proven(project: Path, fake: Fake) -> None:
    (project / "package.json").write_text('{"name": "a"}')
    (project / "Dockerfile").write_text(
        "FROM node:22-slim\nWORKDIR /app\nCOPY . .\nMAINTAINER Jane\nRUN npm install\nEXPOSE 8000\n"
    )
    fake.when(ORIGINAL, fails="x")
    assert run("fix", "--verify", "-w").exit_code == 2
    assert not (project / ".dockerignore").exists()
    fake.when(ORIGINAL, fails=None)
    before = len(fake.contexts)
    assert run("fix", "--verify", "-w").exit_code == 0
    assert (project / ".dockerignore").exists()
    assert [build["has_ignore"] for build in fake.contexts[before : before + 2]] == [False, True]
    assert CANDIDATE in (project / "Dockerfile").read_text()


# -------------------------------------------------------------------- the end when one is asked for


def start(fake: Fake, *args: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(fake.state.parent / "tmp")}
    command = [sys.executable, "-m", "optimizer", *args]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes], sign: int) -> tuple[bytes, bytes]:
    """Ask a process to end; once more after a while, since a signal right before a blocking read is seen with the next one."""
    for _ in range(3):
        process.send_signal(sign)
        if until(lambda: process.poll() is not None, 6.0):
            break
    return process.communicate(timeout=20)


@pytest.mark.processes
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_in_the_middle_of_a_build_clears_up_and_writes_nothing(project: Path, fake: Fake, sign: int) -> None:
    fake.when(CANDIDATE, hangs=True)
    process = start(fake, "fix", "--verify", "-w")
    assert until(lambda: fake.hung and fake.containers)
    out, err = end(process, sign)
    assert process.returncode == 130
    assert (out, err) == (b"", b"interrupted: Dockerfile is as it was, and what was built is removed\n")
    assert (project / "Dockerfile").read_text() == NAIVE
    assert is_clear(fake)


@pytest.mark.processes
def test_an_end_while_a_container_is_watched_clears_up(project: Path, fake: Fake) -> None:
    fake.when("", ports=[])
    process = start(fake, "verify")
    assert until(lambda: fake.containers and len(fake.called("buildx", "build")) == 2 and len(fake.images) == 2)
    end(process, signal.SIGTERM)
    assert process.returncode == 130
    assert (project / "Dockerfile").read_text() == NAIVE
    assert is_clear(fake)


@pytest.mark.processes
def test_a_second_end_does_not_keep_it_from_clearing_up(project: Path, fake: Fake) -> None:
    fake.when(CANDIDATE, hangs=True)
    process = start(fake, "fix", "--verify", "-w")
    assert until(lambda: fake.hung and fake.containers)
    process.send_signal(signal.SIGINT)
    until(lambda: process.poll() is not None, 0.05)
    end(process, signal.SIGINT)
    assert process.returncode != 0
    assert until(lambda: is_clear(fake))
    assert (project / "Dockerfile").read_text() == NAIVE


@pytest.mark.processes
def test_a_killed_run_is_cleared_up_after(project: Path, fake: Fake) -> None:
    fake.when(CANDIDATE, hangs=True)
    process = start(fake, "fix", "--verify", "-w")
    assert until(lambda: fake.hung and fake.containers)
    process.kill()
    process.communicate(timeout=20)
    assert until(lambda: is_clear(fake))
    assert (project / "Dockerfile").read_text() == NAIVE


@pytest.mark.processes
def test_what_was_written_before_the_end_is_not_denied(project: Path, fake: Fake) -> None:
    (project / "b.Dockerfile").write_text(NAIVE.replace("ADD src /src", "RUN other"))
    fake.when("RUN other", hangs=True)
    process = start(fake, "fix", "--verify", "-w", "Dockerfile", "b.Dockerfile")
    assert until(lambda: fake.hung)
    _, err = end(process, signal.SIGINT)
    assert (project / "Dockerfile").read_text() == BETTER
    assert b"nothing was written" not in err
    assert err.endswith(b"interrupted: b.Dockerfile is as it was, and what was built is removed\n")
    assert "RUN other" in (project / "b.Dockerfile").read_text()
    assert is_clear(fake)


def test_the_signals_are_as_before_afterwards(project: Path) -> None:
    before = [signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert run("verify", str(project)).exit_code == 0
    assert [signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


# -------------------------------------------------------------------- progress


def test_progress_stays_on_one_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from optimizer import cli

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    doing = cli._Doing(is_quiet=False)
    doing.show("building\nthe [original]")
    doing.show("x" * 500)
    doing.clear()
    doing.clear()
    silent = cli._Doing(is_quiet=True)
    silent.show("no word")
    silent.clear()
    assert "no word" not in "".join(capsys.readouterr())
