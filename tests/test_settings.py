"""Settings: which source wins, and what is said of a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer.settings import Settings, SettingsError, check_names, load

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_line_wins_over_the_environment_over_the_files(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.dockeropt]\ntarget = "a"\n')
    sub = tmp_path / "sub"
    sub.mkdir()
    assert load(sub, {}, {}).target == "a"
    (tmp_path / ".dockeropt.toml").write_text('target = "b"\nunsafe = true\nselect = ["merge-run"]\n')
    assert load(sub, {}, {}) == Settings(unsafe=True, select=("merge-run",), target="b")
    environment = {"DOCKEROPT_TARGET": "c", "DOCKEROPT_UNSAFE": "false", "DOCKEROPT_IGNORE": "x, y"}
    assert load(sub, environment, {}) == Settings(unsafe=False, select=("merge-run",), ignore=("x", "y"), target="c")
    assert load(sub, environment, {"target": "d", "select": (), "unsafe": None}).target == "d"


def test_the_base_comes_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert load(tmp_path, {}, {}).base == "auto"
    (tmp_path / ".dockeropt.toml").write_text('base = "keep"\n')
    assert load(tmp_path, {}, {}).base == "keep"
    assert load(tmp_path, {"DOCKEROPT_BASE": "slim"}, {}).base == "slim"
    assert load(tmp_path, {"DOCKEROPT_BASE": "slim"}, {"base": "scratch"}).base == "scratch"


def test_the_search_ends_at_the_top_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / ".dockeropt.toml").write_text('target = "outside"\n')
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    assert load(tmp_path / "repo", {}, {}).target is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unsafe = 1\n", "unsafe: expected true or false, found 1"),
        ('base = "slimmest"\n', 'base: expected one of auto, keep, slim, alpine, distroless, scratch, found "slimmest"'),
        ('select = "merge-run"\n', "select: expected a list of strings"),
        ("target = [1]\n", "target: expected a string"),
        ("ignored = []\n", 'unknown key "ignored". Did you mean "ignore"?'),
        ("zzz = 1\n", 'unknown key "zzz". Known: unsafe, select'),
        ("target = \n", ".dockeropt.toml: "),
    ],
)
def test_a_wrong_setting_names_the_file_and_the_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / ".dockeropt.toml").write_text(text)
    with pytest.raises(SettingsError) as error:
        load(tmp_path, {}, {})
    assert words in str(error.value)
    assert ".dockeropt.toml" in str(error.value)


def test_a_wrong_word_in_the_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DOCKEROPT_UNSAFE: expected 0, 1, true or false"):
        load(tmp_path, {"DOCKEROPT_UNSAFE": "maybe"}, {})


def test_names_of_transforms_are_checked() -> None:
    check_names(Settings(select=("a",), ignore=("b",)), ("a", "b"))
    with pytest.raises(SettingsError, match='no transform is called "c"'):
        check_names(Settings(ignore=("c",)), ("a", "b"))
