"""The arrows between the packages, names that say something, and pages that match the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from optimizer.transform import all_transforms
from tests.pages import page, pages

ROOT = Path(__file__).parent.parent
# What each place may import of the project; the design is in docs/architecture.md.
ALLOWED = {
    "optimizer/dockerfile": {"optimizer.dockerfile"},
    "optimizer/facts": {"optimizer.dockerfile", "optimizer.facts", "optimizer.rewrite"},
    "optimizer/rewrite.py": {"optimizer.dockerfile", "optimizer.transform"},
    "optimizer/transform.py": {"optimizer.dockerfile", "optimizer.facts", "optimizer.rewrite", "transforms"},
    "optimizer/contract.py": {"optimizer.dockerfile", "optimizer.facts", "optimizer.rewrite"},
    "optimizer/layers.py": {"optimizer.dockerfile", "optimizer.facts"},
    "optimizer/cleanup.py": {
        "optimizer.dockerfile",
        "optimizer.facts",
        "optimizer.layers",
        "optimizer.rewrite",
        "optimizer.transform",
    },
    "optimizer/reorder.py": {"optimizer.dockerfile", "optimizer.facts"},
    "optimizer/settings.py": set(),
    "optimizer/guards.py": {"optimizer.dockerfile", "optimizer.facts", "optimizer.rewrite"},
    "optimizer/engine.py": {
        "optimizer.guards",
        "optimizer.contract",
        "optimizer.dockerfile",
        "optimizer.facts",
        "optimizer.rewrite",
        "optimizer.settings",
        "optimizer.transform",
    },
    "optimizer/discovery.py": {"optimizer.dockerfile", "optimizer.facts.compose"},
    "optimizer/report": {
        "optimizer.batch",
        "optimizer.engine",
        "optimizer.facts.images",
        "optimizer.report",
        "optimizer.rewrite",
        "optimizer.verify",
    },
    "optimizer/verify": {
        "optimizer.batch",
        "optimizer.dockerfile",
        "optimizer.engine",
        "optimizer.facts",
        "optimizer.rewrite",
        "optimizer.settings",
        "optimizer.verify",
    },
    "optimizer/split": {
        "optimizer.contract",
        "optimizer.dockerfile",
        "optimizer.facts",
        "optimizer.layers",
        "optimizer.rewrite",
        "optimizer.split",
    },
    "transforms": {
        "optimizer.cleanup",
        "optimizer.contract",
        "optimizer.dockerfile",
        "optimizer.facts",
        "optimizer.layers",
        "optimizer.reorder",
        "optimizer.rewrite",
        "optimizer.split",
        "optimizer.transform",
    },
}
MODULES = sorted([*ROOT.glob("optimizer/**/*.py"), *ROOT.glob("transforms/**/*.py")])


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("optimizer", "transforms")}


@pytest.mark.parametrize("place", ALLOWED)
def test_arrows_go_one_way(place: str) -> None:
    paths = [path for path in MODULES if path.relative_to(ROOT).as_posix().startswith(place)]
    assert paths
    for path in paths:
        wrong = {name for name in _imports(path) if not any(f"{name}.".startswith(f"{ok}.") for ok in ALLOWED[place])}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_only_transform_py_knows_the_package_transforms() -> None:
    for path in MODULES:
        outside = path.relative_to(ROOT).parts[0] == "optimizer" and path.name != "transform.py"
        assert not outside or not any(name.startswith("transforms") for name in _imports(path)), path


def test_only_document_py_knows_dockerfile_parse() -> None:
    assert [p.name for p in MODULES if "dockerfile_parse" in p.read_text("utf-8")] == ["document.py"]


def test_only_the_command_line_prints_and_exits() -> None:
    for path in MODULES:
        calls = re.search(r"\bprint\(|sys\.exit|sys\.stdout|sys\.stderr", path.read_text("utf-8"))
        assert path.name == "cli.py" or not calls, path


@pytest.mark.parametrize("transform", all_transforms(), ids=lambda t: t.meta.name)
def test_every_transform_has_a_page_that_is_its_docstring(transform: object) -> None:
    meta = transform.meta  # type: ignore[attr-defined]
    for part in ("Why: ", "Refuses: ", "Source: "):
        assert f"\n{part}" in meta.page, f"{meta.name} says nothing after {part}"
    path = ROOT / "docs" / "transforms" / f"{meta.name}.md"
    assert path.read_text("utf-8") == page(meta), "run: python -m tests.pages"


def test_no_page_is_left_of_a_transform_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / "docs" / "transforms").glob("*.md")} == set(pages())
