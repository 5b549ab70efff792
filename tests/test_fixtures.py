"""Every fixture case: the expected result, twice the same as once, read by BuildKit, nothing lost, and the review beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer.report import text
from optimizer.transform import all_transforms
from tests.fixtures import ROOT, Case, cases, result_of
from tests.oracle import check_outcome

if TYPE_CHECKING:
    from pathlib import Path

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path, *, update_fixtures: bool) -> None:
    (tmp_path / ".git").mkdir()  # a repository of its own: above it, and beside it, nothing is looked for
    folder = case.lay_out(tmp_path / case.folder.name)
    outcome = case.run(folder)
    check_outcome(outcome)
    result = outcome.after.source.to_bytes()
    assert result.decode("utf-8", "surrogateescape") == (case.expected or case.before).decode("utf-8", "surrogateescape")
    ignore = next((file.text for file in outcome.files if file.path == ".dockerignore"), None)
    assert ignore == case.expected_ignore

    for word in _listed(case.options.get("refused")):
        assert any(word in refusal.reason for refusal in outcome.refused), [r.reason for r in outcome.refused]
    for word in _listed(case.options.get("held_back")):
        assert any(word in claim for rewrite in outcome.held_back for claim in rewrite.unknown), outcome.held_back
    _check_review(case, text.render(result_of(outcome)), update=update_fixtures)

    for file in outcome.files:
        (folder / file.path).write_text(file.text)
    again = case.run(folder, result)
    assert not again.is_changed, "a second run changes the result"
    assert not again.errors


def _check_review(case: Case, review: str, *, update: bool) -> None:
    path = case.folder / "report.md"
    if not case.changes:
        return
    page = f"```\n{review}```\n"
    if update:
        path.write_text(page, "utf-8")
    assert path.read_text("utf-8") == page


def _listed(value: object) -> list[str]:
    return [] if value is None else [str(item) for item in value] if isinstance(value, list) else [str(value)]


def test_every_transform_has_more_cases_that_must_not_change() -> None:
    for transform in all_transforms():
        name = transform.meta.name
        own = [case for case in CASES if case.transform == name]
        still = [case for case in own if not case.changes]
        assert own, f"{name} has no fixtures"
        assert len(still) >= len(own) - len(still), f"{name}: more cases change than stay"


def test_every_fixture_folder_belongs_to_a_transform() -> None:
    known = {transform.meta.name for transform in all_transforms()} | {"apps", "pipeline"}
    assert {path.name for path in ROOT.iterdir() if path.is_dir()} <= known
