"""The campaign's own counting: which Dockerfiles count, how rewrites are grouped, and that no row of the list is broken."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.wild.campaign import MOST_PER_REPOSITORY, Repository, as_json, dockerfiles, repositories, run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_list_names_repositories_with_their_commits() -> None:
    rows = repositories()
    assert len(rows) >= 100
    assert len({row.name.lower() for row in rows}) == len(rows)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", row.name) and re.fullmatch(r"[0-9a-f]{40}", row.commit) for row in rows)


def test_a_repository_of_many_dockerfiles_counts_for_a_few(tmp_path: Path) -> None:
    for number in range(MOST_PER_REPOSITORY + 5):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "Dockerfile.md").write_text("a page")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "Dockerfile").write_text("FROM scratch\n")
    found = list(dockerfiles(tmp_path))
    assert len(found) == MOST_PER_REPOSITORY
    assert found == list(dockerfiles(tmp_path))
    assert all(path.parent.name.isdecimal() for path in found)


def test_rewrites_are_grouped_by_what_they_stood_on_the_rarest_first(tmp_path: Path) -> None:
    texts = {"a": "MAINTAINER Jane\n", "b": "MAINTAINER Joe\n", "c": "ADD run.py /\n"}
    for name, text in texts.items():
        (tmp_path / "o+r" / name / ".git").mkdir(parents=True)
        (tmp_path / "o+r" / name / "run.py").write_text("print(1)\n")
        (tmp_path / "o+r" / name / "Dockerfile").write_text(f'FROM debian:12\n{text}CMD ["/run.py"]\n')
    campaign = run(tmp_path, [Repository("o/r", "0" * 40, "a test"), Repository("not/there", "0" * 40, "a test")])
    assert (campaign.files, len(campaign.rewritten), campaign.errors) == (3, 3, [])
    groups = [(name, len(rewrites)) for name, _, rewrites in campaign.groups()]
    assert groups == [("add-to-copy", 1), ("replace-maintainer", 2)]
    report = campaign.report()
    assert "1 repositories, 3 Dockerfiles" in report
    assert report.index("add-to-copy  x1") < report.index("replace-maintainer  x2")
    assert {row["path"] for row in json.loads(as_json(campaign))["rewrites"]} == {f"o+r/{name}/Dockerfile" for name in texts}
