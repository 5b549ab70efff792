"""The outcomes as JSON; the schema is docs/output.schema.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from optimizer.report import diff

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.batch import FileResult
    from optimizer.rewrite import Evidence, Refusal, Rewrite

VERSION = 1


def render(results: Iterable[FileResult]) -> str:
    """One JSON document for all results, with a last newline. Undecodable bytes become U+FFFD."""
    text = json.dumps({"version": VERSION, "files": [_file(result) for result in results]}, ensure_ascii=False, indent=2)
    return text.encode("utf-8", "replace").decode() + "\n"


def _file(result: FileResult) -> dict[str, Any]:
    outcome = result.outcome
    return {
        "path": result.path,
        "changed": result.is_changed,
        "before": outcome.before.source.text if outcome else None,
        "after": outcome.after.source.text if outcome else None,
        "diff": diff.render(result),
        "applied": [_rewrite(rewrite) for rewrite in outcome.applied] if outcome else [],
        "held_back": [_rewrite(rewrite) for rewrite in outcome.held_back] if outcome else [],
        "refused": [_refusal(refusal) for refusal in outcome.refused] if outcome else [],
        "left_alone": result.left_alone.reason if result.left_alone else None,
        "error": _error(result),
    }


def _rewrite(rewrite: Rewrite) -> dict[str, Any]:
    return {
        "transform": rewrite.name,
        "summary": rewrite.summary,
        "why": rewrite.reason,
        "safety": rewrite.safety.name.lower(),
        "evidence": [_evidence(item) for item in rewrite.evidence],
        "caveats": list(rewrite.caveats),
        "unknown": list(rewrite.unknown),
    }


def _refusal(refusal: Refusal) -> dict[str, Any]:
    return {
        "transform": refusal.name,
        "reason": refusal.reason,
        "evidence": [_evidence(item) for item in refusal.evidence],
    }


def _evidence(item: Evidence) -> dict[str, Any]:
    at = item.at
    return {"path": at.path, "line": at.line, "column": at.column, "claim": item.claim, "excerpt": item.excerpt}


def _error(result: FileResult) -> dict[str, Any] | None:
    if result.error is not None:
        return {"line": result.error.line, "column": result.error.column, "message": result.error.message}
    if result.outcome is not None and result.outcome.errors:
        return {"line": 1, "column": 1, "message": "; ".join(result.outcome.errors)}
    return None
