"""The command line: what goes where, exit codes, files written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from optimizer.cli import app

ROOT = Path(__file__).parent.parent
NAIVE = "FROM debian:12\nMAINTAINER Jane\nADD src /src\n"
BETTER = 'FROM debian:12\nLABEL maintainer="Jane"\nCOPY src /src\n'
NOTHING_TO_DO = "FROM debian:12-slim\nRUN true\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a naive Dockerfile, as the current one."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x").write_text("1")
    (tmp_path / "Dockerfile").write_text(NAIVE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(args), input=stdin, catch_exceptions=False)


def test_the_default_shows_a_diff_and_a_review_and_writes_nothing(project: Path) -> None:
    result = run("fix")
    assert result.exit_code == 0
    assert "--- a/Dockerfile\n+++ b/Dockerfile\n" in result.stdout
    assert '-MAINTAINER Jane\n-ADD src /src\n+LABEL maintainer="Jane"\n+COPY src /src\n' in result.stdout
    assert "Dockerfile  2 rewrites" in result.stderr
    assert "Write it: dockeropt fix -w Dockerfile" in result.stderr
    assert (project / "Dockerfile").read_text() == NAIVE


def test_the_diff_can_be_applied_by_git(project: Path) -> None:
    (project / "app").mkdir()
    (project / "app" / "requirements.txt").write_text("flask\n")
    naive = b"FROM python:3.12\r\nCOPY . /app\r\nRUN pip install flask # \xff\r\nADD requirements.txt /x"
    (project / "app" / "Dockerfile").write_bytes(naive)
    patch = subprocess.run([sys.executable, "-m", "optimizer", "fix", "app"], capture_output=True, check=True, env=_environ())
    assert b"b/app/.dockerignore" in patch.stdout
    for command in (["git", "init", "-q"], ["git", "apply", "--verbose", "-"]):
        subprocess.run(command, input=patch.stdout, check=True, cwd=project, capture_output=True)
    after = (project / "app" / "Dockerfile").read_bytes()
    assert after == naive.replace(b"pip install", b"pip install --no-cache-dir").replace(b"ADD", b"COPY")
    assert "__pycache__" in (project / "app" / ".dockerignore").read_text()


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_write_keeps_the_mode_and_says_so(project: Path) -> None:
    (project / "Dockerfile").chmod(0o640)
    result = run("fix", "-w")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert (project / "Dockerfile").read_text() == BETTER
    assert (project / "Dockerfile").stat().st_mode & 0o777 == 0o640
    assert [p.name for p in project.iterdir() if p.name.startswith(".Dockerfile")] == []
    assert "Write it" not in result.stderr


def test_check_exits_with_1_only_when_something_would_change(project: Path) -> None:
    assert run("fix", "--check").exit_code == 1
    (project / "Dockerfile").write_text(NOTHING_TO_DO)
    result = run("fix", "--check", ".")
    assert result.exit_code == 0
    assert result.stderr == "Dockerfile  nothing to rewrite\n"


def test_standard_input_gives_the_rewritten_text(project: Path) -> None:  # noqa: ARG001
    result = run("fix", "-", "--stdin-filename", "sub/Dockerfile", stdin=b"FROM x\nMAINTAINER a\n")
    assert result.stdout == 'FROM x\nLABEL maintainer="a"\n'
    assert "sub/Dockerfile  1 rewrite" in result.stderr
    assert run("fix", "-", "Dockerfile").exit_code == 2


def test_an_unreadable_file_is_one_line_and_untouched(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM x\nRUN apt-get update &&\napt-get install\n")
    result = run("fix", "-w")
    assert result.exit_code == 2
    assert result.stderr == (
        'Dockerfile:3:1: expected an instruction, found "apt-get". Is the line above missing a trailing "\\"?\n'
    )
    assert "apt-get" in (project / "Dockerfile").read_text()


def test_a_file_given_twice_is_one(project: Path) -> None:
    result = run("fix", "-q", "Dockerfile", ".", str(project), "./Dockerfile")
    assert result.stdout.count("+++ ") == 1


def test_a_path_that_a_shell_or_git_would_misread_is_quoted(project: Path) -> None:
    folder = project / "a b\tc"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM x\nMAINTAINER a\n")
    result = run("fix", str(folder))
    assert '+++ "b/a b\\011c/Dockerfile"' in result.stdout
    assert "fix -w 'a b" in result.stderr


def test_a_file_that_nobody_wrote_is_left_alone(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM x\n" + "ENV A=1\n" * 1_200)
    assert "1201 instructions" in run("fix").stderr


def test_one_bad_file_does_not_stop_the_others(project: Path) -> None:
    (project / "bad.Dockerfile").write_text("FRM x\n")
    result = run("fix", "-w")
    assert result.exit_code == 2
    assert (project / "Dockerfile").read_text() == BETTER


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("fix", "nowhere"), "nowhere: expected a file or a folder"),
        (("fix", "src"), "src: expected a Dockerfile in this folder"),
        (("fix", "-w", "--check"), "--write goes with neither"),
        (("fix", "--context", "nowhere"), "--context: expected a folder, found nowhere"),
        (("fix", "--target", "nobody"), 'Dockerfile: no stage is called "nobody"'),
        (("fix", "--format", "xml"), 'expected text or json, found "xml"'),
        (("fix", "--color", "red"), 'expected auto, always or never, found "red"'),
        (("fix", "--select", "merge-runs"), 'no transform is called "merge-runs". Did you mean "merge-run"?'),
        (("explain", "merge-runs"), 'Did you mean "merge-run"?'),
        (("explain", "zzz"), "See: dockeropt list"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_to_do(project: Path, args: tuple[str, ...], words: str) -> None:  # noqa: ARG001
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr


def test_select_and_ignore(project: Path) -> None:
    assert "MAINTAINER" not in run("fix", "--select", "add-to-copy", "-q").stdout.split("@@")[-1].replace(" MAINTAINER", "")
    run("fix", "-w", "--ignore", "add-to-copy,merge-run")
    assert "ADD src" in (project / "Dockerfile").read_text()


def test_quiet_prints_the_diff_alone(project: Path) -> None:  # noqa: ARG001
    result = run("fix", "-q")
    assert result.stderr == ""
    assert "+COPY" in result.stdout


def test_verbose_names_the_rules_and_every_line(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM x\nADD nothing /x\n")
    assert run("fix").stderr == "Dockerfile  nothing to rewrite (1 not done: -v says why)\n"
    assert "nothing is not in the build context" in run("fix", "-v").stderr
    (project / "Dockerfile").write_text(NAIVE)
    assert "DL3020" in run("fix", "-v").stderr


def test_colour_only_where_it_is_wanted(project: Path) -> None:  # noqa: ARG001
    assert "\x1b[" not in run("fix").stdout
    result = run("fix", "--color", "always")
    assert "\x1b[32m" in result.stdout
    assert "\x1b[1m" in result.stderr


def test_templates_are_said_and_left_alone(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM {{ base }}\nMAINTAINER a\n")
    result = run("fix", "-w")
    assert result.exit_code == 0
    assert "left alone: it is a template (line 1" in result.stderr


def test_json_keeps_to_its_schema(project: Path) -> None:
    (project / "bad.Dockerfile").write_text("FRM x\n")
    (project / "tpl.Dockerfile").write_text("FROM {{ x }}\n")
    (project / "held.Dockerfile").write_text("FROM debian:12\nADD gone /x\nENTRYPOINT java -jar x\n")
    result = run("fix", "--format", "json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    schema = json.loads((ROOT / "docs" / "output.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    files = {file["path"]: file for file in found["files"]}
    assert files["bad.Dockerfile"]["error"] == {
        "line": 1,
        "column": 1,
        "message": 'expected an instruction, found "FRM". Did you mean FROM?',
    }
    assert files["Dockerfile"]["after"] == BETTER
    assert files["Dockerfile"]["applied"][0]["evidence"][0]["excerpt"] == "ADD src /src"
    assert files["held.Dockerfile"]["held_back"][0]["unknown"]
    assert files["held.Dockerfile"]["refused"][0]["transform"] == "add-to-copy"
    assert files["tpl.Dockerfile"]["left_alone"] == "it is a template"


def test_list_and_explain(project: Path) -> None:  # noqa: ARG001
    listed = run("list").stdout
    assert listed.splitlines()[0].startswith("write-dockerignore")
    page = run("explain", "clean-apt-lists").stdout
    assert page.startswith("clean-apt-lists\n\nDelete apt's package lists")
    assert "Settles: DL3009" in page


def test_version(project: Path) -> None:  # noqa: ARG001
    assert run("--version").stdout.startswith("dockeropt ")


def test_a_link_out_of_the_folder_is_not_followed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "Dockerfile"
    outside.write_text("FROM x\nMAINTAINER a\n")
    (project / "Dockerfile").unlink()
    (project / "Dockerfile").symlink_to(outside)
    result = run("fix", "-w", "Dockerfile")
    assert result.exit_code == 2
    assert "outside its folder" in result.stderr
    assert "MAINTAINER" in outside.read_text()


def test_a_new_file_never_goes_through_a_link(project: Path) -> None:
    (project / "package.json").write_text("{}")
    (project / "kept").write_text("mine\n")
    (project / ".dockerignore").symlink_to("kept")
    (project / "Dockerfile").write_text("FROM node:22\nCOPY . .\nRUN npm install\nMAINTAINER a\n")
    assert run("fix", "-w").exit_code == 0
    assert (project / "kept").read_text() == "mine\n"


def test_a_copy_without_a_destination_is_no_crash(project: Path) -> None:  # noqa: ARG001
    result = run("fix", "-", stdin=b"FROM debian:12\nMAINTAINER me\nCOPY --from=acme/tool:3\n")
    assert result.exit_code == 0
    assert "LABEL" in result.stdout


def test_a_keyword_cut_over_two_lines_is_written_anew(project: Path) -> None:  # noqa: ARG001
    result = run("fix", "-", stdin=b"FROM python:3.12\nCM\\\nD python app.py\nAD\\\nD src /x\n")
    assert result.exit_code == 0
    assert 'CMD ["python", "app.py"]' in result.stdout


def test_a_link_inside_the_folder_is_followed(project: Path) -> None:
    (project / "Dockerfile").rename(project / "real")
    (project / "Dockerfile").symlink_to("real")
    assert run("fix", "-w", "Dockerfile").exit_code == 0
    assert (project / "Dockerfile").is_symlink()
    assert (project / "real").read_text() == BETTER


def test_a_folder_that_cannot_be_written_gives_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    result = run("fix", "-w")
    assert result.exit_code == 2
    assert "Dockerfile: not written: Permission denied" in result.stderr
    assert (project / "Dockerfile").read_text() == NAIVE


def test_settings_files_and_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "pyproject.toml").write_text('[tool.dockeropt]\nignore = ["add-to-copy"]\n')
    assert "+COPY" not in run("fix").stdout
    (project / ".dockeropt.toml").write_text('select = ["add-to-copy"]\n')
    assert "LABEL" not in run("fix").stdout
    monkeypatch.setenv("DOCKEROPT_SELECT", "replace-maintainer")
    assert "+COPY" not in run("fix").stdout
    assert "+COPY" in run("fix", "--select", "add-to-copy").stdout
    (project / ".dockeropt.toml").write_text("unsave = true\n")
    result = run("fix")
    assert result.exit_code == 2
    assert 'unknown key "unsave". Did you mean "unsafe"?' in result.stderr


def test_many_files_show_how_far_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from optimizer import cli

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = cli._Progress(is_quiet=False)
    files = [project / f"{number}.Dockerfile" for number in range(25)]
    assert list(progress.over(files)) == files
    progress.clear()
    assert "25/25" in capsys.readouterr().err


def test_module_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "optimizer", "list"], capture_output=True, text=True, check=True, env=_environ()
    )
    assert "merge-run" in done.stdout


def test_libcst_is_not_loaded_where_there_is_no_python_to_read() -> None:
    folder = ROOT / "fixtures" / "apps" / "go-templates"
    command = [sys.executable, "-X", "importtime", "-m", "optimizer", "fix", "--dry-run", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_environ())
    assert "+COPY go.mod go.sum ./" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tree_sitter" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("libcst", "rich", "yaml")}
