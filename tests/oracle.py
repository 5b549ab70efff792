"""What a result is held against: BuildKit's own Go parser (PyPI `dockerfile`), and the promise that nothing gets lost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import dockerfile

from optimizer.contract import contract
from optimizer.facts import Facts
from optimizer.facts.context import BuildContext
from optimizer.rewrite import Aspect

if TYPE_CHECKING:
    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.scan import Heredoc
    from optimizer.engine import Outcome

Row = tuple[str, str | None, int, int, tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...]]


class OracleError(Exception):
    """BuildKit's parser cannot read the file; its words."""


def buildkit(text: str) -> list[Row]:
    """Keyword, trigger, lines, flags, values and heredocs of each instruction, by BuildKit. Raises OracleError.

    The Go extension dies of lone surrogates, so undecodable bytes become question marks, here as in `ours`.
    """
    try:
        commands = dockerfile.parse_string(_clean(text))
    except dockerfile.GoParseError as error:
        raise OracleError(str(error)) from error
    return [_row(command) for command in commands if command.cmd]  # a lone continuation character makes a nameless one


def _row(command: Any) -> Row:
    heredocs = tuple((heredoc.name, heredoc.content) for heredoc in command.heredocs)
    trigger = command.sub_cmd.upper() if command.sub_cmd else None
    return (command.cmd.upper(), trigger, command.start_line, command.end_line, command.flags, command.value, heredocs)


def ours(document: Document) -> list[Row]:
    """The same of our own model. The extension reports no heredocs for ONBUILD."""
    return [_own_row(document, instruction) for instruction in document.instructions]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _own_row(document: Document, instruction: Instruction) -> Row:
    inner = instruction.trigger or instruction
    return (
        instruction.keyword,
        instruction.trigger.keyword if instruction.trigger else None,
        instruction.line.first + 1,
        instruction.line.end + 1,
        tuple(_clean(f"--{f.name}" + ("" if f.value is None else f"={f.value}")) for f in instruction.flags),
        tuple(_clean(value) for value in inner.values),
        () if instruction.trigger else tuple((heredoc.name, _body(document, heredoc)) for heredoc in instruction.heredocs),
    )


def _body(document: Document, heredoc: Heredoc) -> str:
    return _clean(document.source.text[heredoc.body.start : heredoc.body.end])


def check_outcome(outcome: Outcome) -> None:
    """Assert what holds for every outcome: readable by BuildKit, no comment lost, no command lost that is not named."""
    assert not outcome.errors, outcome.errors
    text = outcome.after.source.text
    assert ours(outcome.after) == buildkit(text)
    assert not Counter(outcome.before.comments) - Counter(outcome.after.comments), "a comment is lost"
    lost = lost_commands(outcome)
    assert not lost, f"commands that no explanation names are lost: {lost}"


def lost_commands(outcome: Outcome) -> list[str]:
    """The shell commands of the original that are not in the result and that no rewrite names as changed."""
    before = Counter(text for text, _ in _commands(outcome.before))
    after = Counter(text for text, _ in _commands(outcome.after))
    named = Counter(text for r in outcome.applied for c in r.changes if c.aspect is Aspect.COMMANDS for text in c.removed)
    return list((before - after - named).elements())


def _commands(document: Document) -> tuple[tuple[str, str], ...]:
    return contract(Facts(document, BuildContext(None)))[Aspect.COMMANDS]
