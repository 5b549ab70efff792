"""The bundled applications: how they are asked, and, with a Docker daemon, what the tool and an expert make of them.

`python -m tests.apps` builds, runs and measures all of them and writes the table into docs/verify.md.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.batch import fix_file
from optimizer.dockerfile.document import Document
from optimizer.engine import Outcome
from optimizer.report.proof_markdown import table
from optimizer.verify.difference import Area
from optimizer.verify.proof import Proof, Verdict, prove
from optimizer.verify.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer.verify.behaviour import Behaviour
    from optimizer.verify.proof import Measures

APPS = Path(__file__).parent.parent / "fixtures" / "apps"
PAGE = Path(__file__).parent.parent / "docs" / "verify.md"
EXPERT = "expert.Dockerfile"
ENVIRONMENT = {**os.environ, "DOCKER_BUILDKIT": "1"}
_TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- /table -->)", re.DOTALL)


def names() -> list[str]:
    return sorted(path.parent.name for path in APPS.glob("*/app.toml"))


def spec(app: str) -> dict[str, Any]:
    """How to ask an application, and which source to edit."""
    return tomllib.loads((APPS / app / "app.toml").read_text())


def lay_out(app: str, folder: Path) -> None:
    """Copy an application to `folder`, without what is ours: how to ask it, and the expert's Dockerfile."""
    shutil.copytree(APPS / app, folder, ignore=shutil.ignore_patterns("app.toml", EXPERT))


def why_no_daemon() -> str | None:
    """Why Docker cannot be used here, or None."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    done = docker("version", "-f", "{{.Server.Version}}", timeout=20)
    return None if done.returncode == 0 else f"no Docker daemon answers: {done.stderr.strip().splitlines()[-1:]}"


def docker(*args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False)


def missing_base(app: str) -> str | None:
    """The first base image of `app` that is not here, or None."""
    text = (APPS / app / "Dockerfile").read_text()
    bases = re.findall(r"^FROM\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return next((base for base in bases if docker("image", "inspect", base).returncode), None)


@dataclass(frozen=True)
class Row:
    """One application: the proofs of what the tool and an expert made of it; the tool never sees the expert's Dockerfile.

    `seconds`: the whole run for the tool's, with clearing up.
    """

    app: str
    tool: Proof
    expert: Proof
    seconds: float

    @property
    def images(self) -> tuple[Measures, Measures, Measures]:
        """What was measured of the original, of the tool's image and of the expert's."""
        found = (self.tool.before, self.tool.after, self.expert.after)
        assert all(measures is not None for measures in found)
        return found  # type: ignore[return-value]


def row(app: str, on_progress: Callable[[str], None]) -> Row:
    """Compare the original of an application with what the tool makes of it, and with what an expert does."""
    with tempfile.TemporaryDirectory(prefix="dockeropt-app-") as work:
        folder = Path(work) / app
        lay_out(app, folder)
        result = fix_file(folder / "Dockerfile", {"unsafe": True})
        assert result.outcome is not None
        expert = Outcome(result.outcome.before, Document.parse((APPS / app / EXPERT).read_bytes()))
        start = time.monotonic()
        with Session(result.settings.verify, on_progress) as session:
            tool = prove(session, result, drops=False)
        seconds = time.monotonic() - start
        with Session(result.settings.verify, on_progress) as session:
            return Row(app, tool, prove(session, replace(result, outcome=expert), drops=False), seconds)


def ratio(rows: list[Row], one: int, other: int) -> float:
    """Geometric mean over the applications of the size of one image by that of another, in the order of `Row.images`."""
    return math.prod(row.images[one].size / row.images[other].size for row in rows) ** (1 / len(rows))


def page(rows: list[Row]) -> Iterator[str]:
    """The lines of the table in docs/verify.md."""
    yield f"Measured on {date.today().isoformat()} with {rows[0].tool.builder}, by `python -m tests.apps`."
    yield ""
    head = ("application", "", "size", "layers", "system packages", "build without cache", "steps after an edit", "proof")
    yield from table(head, (cells for found in rows for cells in _cells(found)))
    yield ""
    yield f"Size, geometric means: rewritten by original {ratio(rows, 1, 0):.3f}, rewritten by expert {ratio(rows, 1, 2):.3f}."
    spent, builds = sum(found.seconds for found in rows), sum(found.tool.build_seconds for found in rows)
    yield f"All verifications took {spent:.0f} s, the builds among them {builds:.0f} s ({(spent / builds - 1) * 100:+.0f} %)."


def _cells(found: Row) -> Iterator[tuple[str, ...]]:
    assert found.tool.behaviours is not None
    original = found.tool.behaviours[0]
    proofs = (_answered(original), _proven(found.tool), _same(found.expert))
    for version, measures, proof in zip(("original", "rewritten", "expert"), found.images, proofs, strict=True):
        yield (
            found.app if version == "original" else "",
            version,
            f"{measures.size / 1e6:.1f} MB",
            f"{len(measures.layers)}",
            f"{measures.packages}",
            f"{measures.cold_seconds:.1f} s",
            f"{measures.steps} of {measures.total}, {measures.edit_seconds:.1f} s",
            proof,
        )


def _answered(behaviour: Behaviour) -> str:
    return ", ".join(f"{answer.path} {answer.status}" for answer in behaviour.answers)


def _proven(proof: Proof) -> str:
    return "every comparison passes" if proof.verdict is Verdict.PROVEN else f"{len(proof.failures)} differences"


def _same(expert: Proof) -> str:
    """How the expert's image behaves; its files are not what a rewrite announces, and need not be."""
    return "other behaviour" if any(failure.area is Area.BEHAVIOUR for failure in expert.failures) else "same behaviour"


def _main(wanted: list[str]) -> None:
    if reason := why_no_daemon():
        sys.exit(reason)
    rows = []
    for name in wanted or names():
        rows.append(row(name, lambda _: None))
        print(*(" | ".join(cells) for cells in _cells(rows[-1])), sep="\n", flush=True)
    text = "\n".join(page(rows))
    print(text)
    if not wanted:
        PAGE.write_text(_TABLE.sub(lambda _: f"{text}\n", PAGE.read_text()))


if __name__ == "__main__":
    _main(sys.argv[1:])
