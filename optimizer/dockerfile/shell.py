"""A shell script as commands with spans, read by tree-sitter-bash.

`read_script` returns None for what it cannot read: nothing is guessed. Spans are offsets into the script's own text; the
instruction's `Joined` leads from there to the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Span
from optimizer.dockerfile.words import unquoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node, Parser

# The shells whose scripts are read here.
SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
# What changes the shell that later commands run in ("" is a bare assignment): it must neither be passed on to a script that
# had a shell of its own, nor be cut off from the commands that rely on it.
CHANGES_SHELL = frozenset(
    """cd pushd popd export declare typeset readonly unset umask set trap source . alias unalias ulimit shopt enable hash exit
    return local eval read mapfile readarray getopts let exec""".split()
) | {""}
_PATTERN = re.compile(r"[*?\[{]")
_JOINERS = frozenset({"&&", "||", ";", "&", "\n", ";;"})
# A command inside one of these does not simply run once, in this shell, with its status counted.
_GUARDS = {
    "if_statement": "conditional",
    "case_statement": "conditional",
    "for_statement": "loop",
    "c_style_for_statement": "loop",
    "while_statement": "loop",
    "function_definition": "function",
    "command_substitution": "substitution",
    "process_substitution": "substitution",
    "negated_command": "negated",
    "pipeline": "pipeline",
    "subshell": "subshell",
}
_COMMANDS = frozenset({"command", "declaration_command", "unset_command", "test_command"})
_WRAPPERS = frozenset({"sudo", "env", "command", "eatmydata", "nice", "time", "nohup", "timeout"})
_ERREXIT = re.compile(r"-[A-Za-z]*e[A-Za-z]*$|errexit$")
# Options of sudo and env that take the next word with them.
_WRAPPER_VALUES = frozenset({"-u", "-g", "-U", "-h", "-p", "-C", "-r", "-t", "-T", "--user", "--group", "--unset", "--chdir"})
# Statements in which `set -e` works as it does at the top level: no loop, group or condition.
_PLAIN = frozenset({"command", "declaration_command", "unset_command", "test_command", "variable_assignment", "pipeline"})
_MAX_SCRIPT = 200_000


@dataclass(frozen=True, slots=True)
class ShellWord:
    """A word of a command.

    `text` is the word after quote removal, or None where a variable or a command substitution makes it unknown.
    `is_pattern`: the shell would expand an unquoted `*`, `?`, `[`, `{` or a leading `~`.
    """

    raw: str
    text: str | None
    is_pattern: bool
    span: Span

    @property
    def is_plain(self) -> bool:
        """Whether the shell passes exactly `text` on."""
        return self.text is not None and not self.is_pattern


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirection: operator and target, the target also as it is written; None where a variable makes it unknown."""

    operator: str
    target: str | None
    raw: str = ""

    @property
    def is_to_a_file(self) -> bool:
        """Whether it writes to a file, not to a device or to another output."""
        return ">" in self.operator and not re.match(r"/dev/|&|\d$", self.target or "")


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command. `guards` names what encloses it: conditional, loop, function, fallback (right of `||`), ...

    `head` is the index of the word that names the program; `name` is that program, without its folder and without `sudo` or
    `env` in front: None where it is not a literal, "" for a bare assignment.
    """

    words: tuple[ShellWord, ...]
    assignments: tuple[str, ...]
    redirects: tuple[Redirect, ...]
    span: Span
    guards: frozenset[str]
    head: int = field(init=False)
    name: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", _head(self.words))
        object.__setattr__(self, "name", _program(self.words[self.head :]))

    @property
    def args(self) -> tuple[str, ...]:
        """The arguments; what is unknown stands as it was written."""
        return tuple(word.raw if word.text is None else word.text for word in self.words[self.head + 1 :])

    @property
    def sets(self) -> tuple[str, ...]:
        """The variables that hold for this command only: `A=1 program`, `env A=1 program`."""
        return (*self.assignments, *(word.raw for word in self.words[: self.head] if "=" in word.raw))

    @property
    def is_unconditional(self) -> bool:
        """Whether it runs exactly once when the script succeeds, in the script's own order."""
        return not self.guards & {
            "conditional",
            "loop",
            "function",
            "fallback",
            "substitution",
            "negated",
            "background",
        }

    def __str__(self) -> str:
        head = list(self.assignments) + [word.raw for word in self.words]
        return " ".join(head + [f"{r.operator}{r.target or ''}" for r in self.redirects])


def _head(words: tuple[ShellWord, ...]) -> int:
    at = 0
    while at + 1 < len(words) and words[at].text in _WRAPPERS:
        is_timeout = words[at].text == "timeout"
        at += 1
        while at + 1 < len(words) and (words[at].raw.startswith("-") or "=" in words[at].raw):
            at += 2 if words[at].raw in _WRAPPER_VALUES and at + 2 < len(words) else 1
        at += 1 if is_timeout and at + 1 < len(words) else 0
    return at


def _program(words: tuple[ShellWord, ...]) -> str | None:
    if not words:
        return ""
    text = words[0].text
    return None if text is None else text.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Step:
    """A statement of a script's top level and the operator in front of it (`&&`, `||`, `;`, `&`, newline, or "")."""

    joiner: str
    span: Span
    kind: str


@dataclass(frozen=True)
class Script:
    """A readable script."""

    text: str
    commands: tuple[Command, ...]
    steps: tuple[Step, ...]
    comments: tuple[Span, ...]
    tail: str

    @property
    def is_chain(self) -> bool:
        """Whether it is one `a && b && c`, so that another `&&` neither hides nor changes a failure."""
        return all(step.joiner in ("", "&&") for step in self.steps) and not self.tail

    @property
    def is_plain_chain(self) -> bool:
        """Whether it is such a chain of simple commands and pipelines: `set -e` works in it wherever it stands."""
        return self.is_chain and all(step.kind in _PLAIN for step in self.steps)

    @cached_property
    def expects_errexit(self) -> bool:
        """Whether `set -e` is in force somewhere in it."""
        return any(c.name == "set" and has_errexit(c.args) for c in self.commands)

    @property
    def ends_plainly(self) -> bool:
        """Whether its last statement is a simple command or a pipeline."""
        return bool(self.steps) and self.steps[-1].kind in _PLAIN

    def find(self, name: str, *subcommands: str) -> tuple[Command, ...]:
        """The commands that run `name`, with one of `subcommands` as its first argument that is no option."""
        return tuple(c for c in self.commands if c.name == name and (not subcommands or subcommand(c) in subcommands))

    def step_of(self, command: Command) -> int:
        """Index of the step that holds `command`."""
        return next(i for i, step in enumerate(self.steps) if step.span.contains(command.span))


def has_errexit(options: tuple[str, ...]) -> bool:
    """Whether options of a shell, or of `set`, switch on errexit: `-e`, `-Eeuo`, `-o errexit`."""
    return any(_ERREXIT.match(option) for option in options)


def subcommand(command: Command) -> str | None:
    """The first argument that is no option: `install` of `apt-get -y install curl`."""
    return next((arg for arg in command.args if not arg.startswith("-")), None)


def from_words(words: tuple[str, ...]) -> Script:
    """The script of an exec form: one command whose words are passed as they are, with no place in the file to edit."""
    nowhere = Span(0, 0)
    command = Command(tuple(ShellWord(w, w, is_pattern=False, span=nowhere) for w in words), (), (), nowhere, frozenset())
    return Script(" ".join(words), (command,) if words else (), (), (), "")


@lru_cache(maxsize=4096)
def read_script(text: str) -> Script | None:
    """The commands of a POSIX or bash script, or None where it cannot be read with certainty."""
    if len(text) > _MAX_SCRIPT:
        return None
    data = text.encode("utf-8", "surrogateescape")
    root = _parser().parse(data).root_node
    if root.has_error:
        return None
    reader = _Reader(text, data)
    try:
        steps, tail = reader.steps(root)
        commands = tuple(reader.commands(root, frozenset()))
    except (_UnreadableError, RecursionError):
        return None
    return Script(text, commands, steps, tuple(reader.span(n) for n in _descendants(root, "comment")), tail)


class _UnreadableError(Exception):
    """The tree has a shape that this module does not know."""


@lru_cache(maxsize=1)
def _parser() -> Parser:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _descendants(node: Node, kind: str) -> Iterator[Node]:
    for child in node.children:
        if child.type == kind:
            yield child
        yield from _descendants(child, kind)


def _holds_list(node: Node) -> bool:
    return node.type == "list" or (node.type == "redirected_statement" and node.children[0].type == "list")


class _Reader:
    def __init__(self, text: str, data: bytes) -> None:
        self.text = text
        self.offsets: list[int] | None = None
        if len(data) != len(text):  # bytes to characters, for scripts that are not plain ASCII
            widths = [len(char.encode("utf-8", "surrogateescape")) for char in text]
            self.offsets = [0] * (len(data) + 1)
            for index, start in enumerate(accumulate(widths, initial=0)):
                self.offsets[start] = index

    def span(self, node: Node) -> Span:
        start, end = node.start_byte, node.end_byte
        if self.offsets is not None:
            start, end = self.offsets[start], self.offsets[end]
        return Span(start, end)

    def raw(self, node: Node) -> str:
        span = self.span(node)
        return self.text[span.start : span.end]

    # ------------------------------------------------------------ the top level

    def steps(self, root: Node) -> tuple[tuple[Step, ...], str]:
        found: list[Step] = []
        joiner = ""
        for child in root.children:
            if child.type == "comment":
                continue
            if not child.is_named:
                if child.type not in _JOINERS:
                    raise _UnreadableError(child.type)
                joiner = child.type
                continue
            first = ("\n" if not joiner and found else joiner, child)
            found += self._flatten(*first)
            joiner = ""
        return tuple(found), joiner

    def _flatten(self, joiner: str, node: Node) -> list[Step]:
        """The steps of `a && b || c`.

        The grammar hangs a redirection on a whole list, and puts the end of `a | b | c && d` below the first pipe; so what it
        built is taken apart into operands and operators, and put together as a shell does: `|` binds closer than `&&`.
        """
        steps: list[Step] = []
        for operator, operand, span in self._operands("", node):
            if operator in ("|", "|&") and steps:
                last = steps[-1]
                steps[-1] = Step(last.joiner, Span(last.span.start, span.end), "pipeline")
                continue
            steps.append(Step(operator or joiner, span, operand.type))
        return steps

    def _operands(self, operator: str, node: Node) -> Iterator[tuple[str, Node, Span]]:
        """The operands below `node`, each with the operator in front of it, and with the redirections behind it."""
        if node.type == "redirected_statement" and node.children[0].type in ("list", "pipeline"):
            found = list(self._operands(operator, node.children[0]))
            last = found[-1]
            yield from found[:-1]
            yield last[0], last[1], Span(last[2].start, self.span(node).end)
        elif node.type in ("list", "pipeline"):
            for child in node.children:
                if child.type == "comment":
                    continue
                if not child.is_named:
                    operator = child.type
                    continue
                yield from self._operands(operator, child)
        else:
            inner = node.children[0] if node.type == "redirected_statement" else node
            yield operator, inner, self.span(node)

    # ------------------------------------------------------------ commands

    def commands(self, node: Node, guards: frozenset[str], redirects: tuple[Redirect, ...] = ()) -> Iterator[Command]:
        if node.type in _COMMANDS:
            yield self._command(node, guards, redirects)
            for child in node.children:
                yield from self._nested(child, guards)
            return
        if node.type == "variable_assignment":
            yield Command((), (self.raw(node),), redirects, self.span(node), guards)
            yield from self._nested(node, guards)
            return
        if guard := _GUARDS.get(node.type):
            guards |= {guard}
        if node.type == "redirected_statement":
            found = [c for c in node.children if c.type.endswith("_redirect")]
            found += [c for heredoc in found for c in heredoc.children if c.type == "file_redirect"]
            redirects += tuple(self._redirect(c) for c in found)
        children = node.children
        for index, child in enumerate(children):
            inner = guards
            if node.type == "pipeline" and any(b"||" in (c.text or b"") for c in children[:index] if _holds_list(c)):
                inner = guards | {"fallback"}
            if node.type == "list" and index > 0 and children[index - 1].type == "||":
                inner = guards | {"fallback"}
            follower = children[index + 1].type if index + 1 < len(children) else ""
            if follower == "&":
                inner = inner | {"background"}
            last = node.type in ("redirected_statement", "list") and (index == 0 or node.type == "list")
            passed = redirects if last and (node.type != "list" or index == len(children) - 1) else ()
            yield from self.commands(child, inner, passed)

    def _nested(self, node: Node, guards: frozenset[str]) -> Iterator[Command]:
        """The commands in the substitutions below a word."""
        for child in node.children:
            if child.type in ("command_substitution", "process_substitution"):
                yield from self.commands(child, guards)
            else:
                yield from self._nested(child, guards)
        if node.type in ("command_substitution", "process_substitution"):
            yield from self.commands(node, guards)

    def _command(self, node: Node, guards: frozenset[str], redirects: tuple[Redirect, ...]) -> Command:
        words: list[ShellWord] = []
        assignments: list[str] = []
        for child in node.children:
            if child.type == "variable_assignment" and node.type == "command":
                assignments.append(self.raw(child))
            elif child.type.endswith("_redirect"):
                redirects += (self._redirect(child),)
            elif child.type == "command_name":
                words.append(self._word(child.children[0] if child.children else child))
            else:
                words.append(self._word(child))
        return Command(tuple(words), tuple(assignments), redirects, self.span(node), guards)

    def _redirect(self, node: Node) -> Redirect:
        operator = next((c.type for c in node.children if not c.is_named), "<<")
        target = next((c for c in reversed(node.children) if c.is_named), None)
        return Redirect(
            operator, None if target is None else self._word(target).text, "" if target is None else self.raw(target)
        )

    def _word(self, node: Node) -> ShellWord:
        raw = self.raw(node)
        text, is_pattern = dequote(raw)
        return ShellWord(raw, text, is_pattern, self.span(node))


def dequote(raw: str) -> tuple[str | None, bool]:
    """A word after quote removal (None where something in it expands), and whether an unquoted pattern is in it."""
    text, is_pattern = "", raw.startswith("~")
    for _, char, quote, is_escaped in unquoted(raw, special='"\\$`\n'):
        if not is_escaped and quote != "'" and char in "$`":
            return None, is_pattern
        if is_escaped and char == "\n":
            continue  # a line that goes on
        is_pattern = is_pattern or (not quote and not is_escaped and _PATTERN.match(char) is not None)
        text += char
    return text, is_pattern
