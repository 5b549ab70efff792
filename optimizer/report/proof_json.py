"""Proofs as JSON; the schema is docs/proof.schema.json."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from optimizer.report.proof_rows import hints

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.verify.behaviour import Behaviour
    from optimizer.verify.difference import Difference
    from optimizer.verify.proof import Measures, Proof

VERSION = 1


def render(proofs: Iterable[Proof]) -> str:
    """One JSON document for all proofs, with a last newline."""
    text = json.dumps({"version": VERSION, "proofs": [_proof(proof) for proof in proofs]}, ensure_ascii=False, indent=2)
    return text.encode("utf-8", "replace").decode() + "\n"


def _proof(proof: Proof) -> dict[str, Any]:
    return {
        "path": proof.path,
        "verdict": proof.verdict.value,
        "reason": proof.reason,
        "log": list(proof.log),
        "builder": proof.builder,
        "seconds": round(proof.seconds, 2),
        "build_seconds": round(proof.build_seconds, 2),
        "before": _measures(proof.before),
        "after": _measures(proof.after),
        "edited": proof.edited,
        "differences": [_difference(difference) for difference in proof.differences],
        "behaviour": [_behaviour(found) for found in proof.behaviours or ()],
        "hints": [{"name": name, "works": works, "text": text} for (name, works), text in _hints(proof)],
        "applied": [rewrite.name for rewrite in proof.outcome.applied],
        "dropped": [
            {
                "transform": dropped.rewrite.name,
                "summary": dropped.rewrite.summary,
                "failures": [_difference(failure) for failure in dropped.failures],
                "log": list(dropped.log),
            }
            for dropped in proof.dropped
        ],
    }


def _hints(proof: Proof) -> Iterable[tuple[tuple[str, bool], str]]:
    return zip(proof.hints.items(), hints(proof), strict=True)


def _measures(measures: Measures | None) -> dict[str, Any] | None:
    return None if measures is None else dataclasses.asdict(measures)


def _difference(difference: Difference) -> dict[str, Any]:
    return {"area": difference.area.value, "what": difference.what, "by": difference.by, "count": difference.count}


def _behaviour(found: Behaviour) -> dict[str, Any]:
    return {
        "problem": found.problem,
        "exit_code": found.exit_code,
        "ports": [str(port) for port in found.ports],
        "answers": [
            {"port": a.port, "path": a.path, "status": a.status, "location": a.location, "bytes": len(a.body)}
            for a in found.answers
        ],
        "healthy": found.health,
        "ready_seconds": round(found.ready_seconds, 2),
        "stop_seconds": None if found.stop_seconds is None else round(found.stop_seconds, 2),
    }
