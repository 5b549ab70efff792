"""Shell scripts: commands with their spans, and None for what cannot be read."""

from __future__ import annotations

import pytest

from optimizer.dockerfile.shell import dequote, from_words, read_script, subcommand
from optimizer.facts.commands import Placed, changed, covers, deleted, expand_braces, placed, written
from optimizer.facts.sources import reads_no_sources


def test_steps_and_their_joiners() -> None:
    script = read_script("a && b > f 2>&1 && c || d; e & f")
    assert script is not None
    found = [(step.joiner, script.text[step.span.start : step.span.end]) for step in script.steps]
    assert found == [("", "a"), ("&&", "b > f 2>&1"), ("&&", "c"), ("||", "d"), (";", "e"), ("&", "f")]
    assert not script.is_chain
    assert [sorted(c.guards) for c in script.commands] == [[], [], [], ["fallback"], ["background"], []]
    assert [c.redirects != () for c in script.commands] == [False, True, False, False, False, False]


@pytest.mark.parametrize("text", ["a && (", "a &&", "if a; then b", 'echo "a', "for x in"])
def test_what_cannot_be_read_is_none(text: str) -> None:
    assert read_script(text) is None


def test_a_script_that_is_too_long_is_not_read() -> None:
    assert read_script("a;" * 150_000) is None


def test_commands_inside_other_commands_know_it() -> None:
    script = read_script('if [ -f x ]; then a; fi; for i in 1; do b; done; c() { d; }; e "$(f)" | g; ! h; (i)')
    assert script is not None
    guards = {c.name: c.guards for c in script.commands}
    assert guards["a"] == {"conditional"}
    assert guards["b"] == {"loop"}
    assert guards["d"] == {"function"}
    assert guards["f"] == {"pipeline", "substitution"}
    assert guards["h"] == {"negated"}
    assert guards["i"] == {"subshell"}
    assert not next(c for c in script.commands if c.name == "a").is_unconditional


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("sudo -E apt-get install -y x", "apt-get", ("install", "-y", "x")),
        ("env A=1 B=2 make all", "make", ("all",)),
        ("A=1 /usr/bin/make all", "make", ("all",)),
        ("$X y", None, ("y",)),
        ("A=1", "", ()),
        ("nice sudo true", "true", ()),
    ],
)
def test_wrappers_do_not_hide_the_program(text: str, name: str | None, args: tuple[str, ...]) -> None:
    script = read_script(text)
    assert script is not None
    assert (script.commands[0].name, script.commands[0].args) == (name, args)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a", ("a", False)),
        ("'a $b'", ("a $b", False)),
        ('"a $b"', (None, False)),
        ('"a \\$b \\x"', ("a $b \\x", False)),
        ("a\\ b", ("a b", False)),
        ("*.c", ("*.c", True)),
        ("'*.c'", ("*.c", False)),
        ("~/x", ("~/x", True)),
        ("`a`", (None, False)),
        ("a\\\nb", ("ab", False)),
    ],
)
def test_words_after_quote_removal(raw: str, expected: tuple[str | None, bool]) -> None:
    assert dequote(raw) == expected


def test_characters_beyond_ascii_keep_their_places() -> None:
    text = "echo é && naïve 日本 && c"
    script = read_script(text)
    assert script is not None
    assert [text[c.span.start : c.span.end] for c in script.commands] == ["echo é", "naïve 日本", "c"]


def test_exec_form_is_one_command() -> None:
    script = from_words(("apt-get", "install", "a b"))
    assert [(c.name, c.args) for c in script.commands] == [("apt-get", ("install", "a b"))]
    assert subcommand(script.commands[0]) == "install"


def _placed(text: str, cwd: str | None = "/w") -> tuple[Placed, ...]:
    script = read_script(text)
    assert script is not None
    return placed(script, cwd)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("curl -fsSLo /tmp/a.tgz https://x/a.tgz", {"/tmp/a.tgz"}),
        ("curl -O https://x/a.tgz?b=1", {"/w/a.tgz"}),
        ("curl https://x", set()),
        ("wget https://x/a.tgz", {"/w/a.tgz"}),
        ("wget -qO- https://x/a.tgz", set()),
        ("wget -P /tmp https://x/a.tgz", {"/tmp/a.tgz"}),
        ("cd /tmp && wget https://x/a.tgz", {"/tmp/a.tgz"}),
        ("cd $X && wget https://x/a.tgz", set()),
        ("echo a > b", {"/w/b"}),
        ("tar -xzf a -C /opt/x", {"/opt/x"}),
        ("git clone https://x/y.git", {"/w/y"}),
        ("git clone https://x/y.git z", {"/w/z"}),
        ("touch a && mkdir b", set()),
        ("cp a /b", {"/b"}),
    ],
)
def test_what_commands_write(text: str, paths: set[str]) -> None:
    assert {t.path for t in written(_placed(text))} == paths


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("rm -rf /a b", {"/a", "/w/b"}),
        ("rm -rf $X", set()),
        ("find /a -delete", {"/a"}),
        ("find /a -name '*.c' -delete", set()),
        ("apt-get purge -y gcc", {"apt:gcc"}),
        ("apk del .build", {"apk:.build"}),
        ("npm cache clean --force", {"cache:npm"}),
        ("dnf clean all", {"cache:dnf"}),
    ],
)
def test_what_commands_delete(text: str, paths: set[str]) -> None:
    assert {t.path for t in deleted(_placed(text))} == paths


def test_what_commands_change_in_place() -> None:
    assert {t.path for t in changed(_placed("chmod +x a && sed -i s/a/b/ /c && mv d e && chown x:y -R f"))} == {
        "/w/a",
        "/c",
        "/w/d",
        "/w/f",
    }


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/tmp/*", "/tmp/a", True),
        ("/tmp", "/tmp/a/b", True),
        ("/tmp/a/b", "/tmp/a", True),
        ("/tmp/a", "/tmp/ab", False),
        ("/tmp/x", "/tmp", False),
        ("/var/lib/{apt,dpkg}/lists", "/var/lib/apt/lists", True),
        ("apt:git", "apt:git", True),
        ("apt:git", "/git", False),
        ("/*", "/a", False),
    ],
)
def test_deleting_one_path_covers_another(pattern: str, path: str, expected: bool) -> None:  # noqa: FBT001
    assert covers(pattern, path) is expected


def test_braces_expand_as_in_a_shell() -> None:
    assert expand_braces("/a/{b,c}/{d,e}") == ("/a/b/d", "/a/b/e", "/a/c/d", "/a/c/e")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("apt-get install -y git", True),
        ("pip install flask", True),
        ("pip install -r requirements.txt", False),
        ("pip install .", False),
        ("python -m pip install --upgrade pip", True),
        ("npm install -g typescript", True),
        ("npm install -g .", False),
        ("npm install", False),
        ("go install example.com/x@v1.2.3", True),
        ("go install ./...", False),
        ("mkdir -p /w/x", True),
        ("echo a > /w/b", False),
        ("echo a > /etc/b", True),
        ("make", False),
        ("$X", False),
        ("curl -o /w/x https://y", False),
    ],
)
def test_which_commands_do_without_the_sources(text: str, expected: bool) -> None:  # noqa: FBT001
    assert reads_no_sources(_placed(text)[0], ("/w",)) is expected


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a | b | c && d", [("", "a | b | c"), ("&&", "d")]),
        ("a && b || c 2>&1 | d", [("", "a"), ("&&", "b"), ("||", "c 2>&1 | d")]),
        ("a | b || c | d > f && e", [("", "a | b"), ("||", "c | d > f"), ("&&", "e")]),
        ("! a | b && c", [("", "! a | b"), ("&&", "c")]),
        ("a |& b && c", [("", "a |& b"), ("&&", "c")]),
        ("a && (b || c) | d", [("", "a"), ("&&", "(b || c) | d")]),
    ],
)
def test_pipes_bind_closer_than_lists(text: str, steps: list[tuple[str, str]]) -> None:
    script = read_script(text)
    assert script is not None
    assert [(step.joiner, text[step.span.start : step.span.end]) for step in script.steps] == steps
