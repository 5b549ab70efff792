"""The pages of the transforms, from their docstrings: `python -m tests.pages` writes docs/transforms/*.md."""

from __future__ import annotations

import re
from pathlib import Path

from optimizer.transform import Meta, all_transforms

FOLDER = Path(__file__).parent.parent / "docs" / "transforms"


def pages() -> dict[str, str]:
    """The page of each transform by its name."""
    return {transform.meta.name: page(transform.meta) for transform in all_transforms()}


def page(meta: Meta) -> str:
    """The docstring of a transform as Markdown."""
    body = re.sub(r"^(Why|Refuses|Source): ", r"\n**\1.** ", meta.page.replace("\n\nWhy:", "\nWhy:"), flags=re.MULTILINE)
    rules = f"\n**Settles.** {', '.join(meta.settles)}\n" if meta.settles else ""
    off = f"\n**Switch it off.** `# dockeropt: ignore={meta.name}` above an instruction; `ignore` in the settings.\n"
    return f"# {meta.name}\n\n{body}\n{rules}{off}"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (FOLDER / f"{name}.md").write_text(text, "utf-8")
