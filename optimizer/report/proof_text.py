"""A proof for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.report import proof_rows as rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from optimizer.verify.proof import Proof

_WIDTH = 14
_SHOWN = 6


def render(proof: Proof, *, verbose: bool = False) -> Iterator[RenderableType]:
    """The verdict, the table of what was won, what was compared, and what was left out; to be printed one below the other."""
    from rich.text import Text

    spent = f"  ({rows.spent(proof)})" if rows.spent(proof) else ""
    yield Text.assemble(
        (proof.path.encode("utf-8", "replace").decode(), "bold"), "  ", (rows.headline(proof), _style(proof)), spent
    )
    yield from _log(proof.log)
    if gains := rows.gains(proof):
        yield _table(gains)
    for compared in rows.compared(proof):
        verdict = (compared.verdict, "green" if compared.holds else "bold red")
        yield Text.assemble(compared.area.ljust(_WIDTH), verdict)
        yield from (Text(f"    {line}", style="red") for line in compared.failures)
        shown = compared.announced if verbose else compared.announced[:_SHOWN]
        yield from (Text(f"    {line}", style="dim") for line in shown)
        if len(shown) < len(compared.announced):
            yield Text(f"    and {len(compared.announced) - len(shown)} more (-v)", style="dim")
    for name, why, log in rows.dropped(proof):
        yield Text.assemble(("left out".ljust(_WIDTH), "yellow"), name)
        yield Text(f"    {why}", style="red")
        yield from _log(log[-4:])
    yield from (Text(f"{'hint'.ljust(_WIDTH)}{hint}") for hint in rows.hints(proof))


def _log(lines: tuple[str, ...]) -> Iterator[RenderableType]:
    from rich.text import Text

    yield from (Text(f"    | {line}", style="dim") for line in lines)


def _table(gains: tuple[rows.Gain, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("", "original", "rewritten", ""):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for gain in gains:
        table.add_row(*(Text(cell) for cell in (gain.what, gain.before, gain.after, gain.change)))
    return table


def _style(proof: Proof) -> str:
    return {"proven": "bold green", "failed": "bold red"}.get(proof.verdict.value, "yellow")
