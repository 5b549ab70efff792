"""Every way in which a bold rewrite goes wrong has a fixture, or a reason why it has none."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.fixtures import cases

TABLE = tomllib.loads((Path(__file__).parent / "hazards.toml").read_text("utf-8"))
ROWS: dict[str, str] = TABLE["rows"]


def _named() -> dict[str, list[str]]:
    """The fixtures by the row that they stand for."""
    found: dict[str, list[str]] = {}
    for case in cases():
        rows = case.options.get("hazard", [])
        for row in [rows] if isinstance(rows, str) else rows:
            found.setdefault(row, []).append(case.name)
    return found


NAMED = _named()


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_fixture_or_a_reason(row: str) -> None:
    fixtures, reason = NAMED.get(row), TABLE["reasons"].get(row)
    assert fixtures or reason, f"{row} ({ROWS[row]}): neither a fixture nor a reason"
    assert not (fixtures and reason), f"{row} has fixtures ({fixtures}) and a reason not to have any"


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith("18.") and row not in TABLE["reasons"]])
def test_what_went_wrong_in_the_wild_has_a_sibling(row: str) -> None:
    assert len(NAMED.get(row, [])) > 1, f"{row} ({ROWS[row]}): one fixture alone holds the witness, not the cause"


def test_fixtures_and_reasons_name_rows_that_exist() -> None:
    assert {*NAMED, *TABLE["reasons"]} <= set(ROWS)
