"""A proof as Markdown, for a pull request or a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.report import proof_rows as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.verify.proof import Proof


def render(proofs: Iterable[Proof]) -> str:
    """All proofs, one section each, with a last newline."""
    return "\n".join(line for proof in proofs for line in _proof(proof)) + "\n"


def _proof(proof: Proof) -> Iterator[str]:
    yield from (f"## {_plain(proof.path)}", "", f"**{_plain(rows.headline(proof))}** {_plain(rows.spent(proof))}", "")
    yield from _fenced(proof.log)
    if gains := rows.gains(proof):
        yield from table(("", "original", "rewritten", "change"), ((g.what, g.before, g.after, g.change) for g in gains))
        yield ""
    for compared in rows.compared(proof):
        yield f"- {compared.area}: {compared.verdict}" if compared.holds else f"- {compared.area}: **{compared.verdict}**"
        yield from (f"  - **{_plain(line)}**" for line in compared.failures)
        yield from (f"  - {_plain(line)}" for line in compared.announced)
    for name, why, log in rows.dropped(proof):
        yield f"- left out: {_plain(name)}. {_plain(why)}"
        yield from (f"  {line}" for line in _fenced(log[-4:]))
    yield from (f"- hint: {_plain(hint)}" for hint in rows.hints(proof))
    yield ""


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of a table."""
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield "|" + " --- |" * len(names)
    for row in body:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"


def _fenced(lines: tuple[str, ...]) -> Iterator[str]:
    if lines:
        yield from ("```", *(line.replace("```", "'''") for line in lines), "```", "")


def _plain(text: str) -> str:
    """`text` without anything that Markdown or a table would take for markup."""
    escaped = "".join(f"\\{char}" if char in "\\`*_[]<>|#&" else char for char in text)
    return " ".join(escaped.split("\n"))
