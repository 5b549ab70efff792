"""With a Docker daemon: the applications answer before and after, and the cache model counts as BuildKit does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer.dockerfile.document import Document
from optimizer.engine import optimize
from optimizer.facts import Facts
from optimizer.facts.context import BuildContext
from optimizer.settings import Settings
from tests import apps

if TYPE_CHECKING:
    from pathlib import Path

    from optimizer.facts.cache import Rerun

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", autouse=True)
def _daemon() -> None:
    if reason := apps.why_no_daemon():
        pytest.skip(reason)


def _by_model(app: str, folder: Path) -> tuple[Rerun, Rerun]:
    """What an edit to the application's source re-runs before and after, by the cache model."""
    apps.lay_out(app, folder)
    edit = apps.spec(app)["edit"]
    document = Document.parse((folder / "Dockerfile").read_bytes())
    context = BuildContext(folder, "Dockerfile")
    outcome = optimize(document, context, Settings(unsafe=True))
    after = context.with_files({file.path: file.text for file in outcome.files})
    return Facts(document, context).cache.rerun(edit), Facts(outcome.after, after).cache.rerun(edit)


@pytest.mark.parametrize("app", apps.names())
def test_an_application_answers_before_and_after(app: str, tmp_path: Path) -> None:
    if base := apps.missing_base(app):
        pytest.skip(f"the image {base} is not here")
    before = apps.build_and_ask(app, "before")
    after = apps.build_and_ask(app, "unsafe")
    assert before.built, before.note
    assert before.answers, before.note
    assert after.built, after.note
    assert after.answers, after.note
    assert after.megabytes <= before.megabytes * 1.01
    predicted = _by_model(app, tmp_path / app)
    assert (predicted[0].steps, predicted[0].total) == (before.steps, before.total)
    assert predicted[1].total == after.total
    # a COPY from a stage that ran again is in the cache where it comes out the same: blank lines change no compiled file
    assert predicted[1].steps >= after.steps


LAYER = """FROM {base}
WORKDIR /work
RUN cd /tmp && printf 'secret' > big.txt && umask 077
RUN grep -q nothing /tmp/big.txt || echo fallback > made.txt; echo $PWD >> made.txt
RUN rm /tmp/big.txt && touch mode.txt
"""


def test_joined_layers_leave_the_same_files(tmp_path: Path) -> None:
    base = "python:3.11"
    if apps.docker("image", "inspect", base).returncode:
        pytest.skip(f"the image {base} is not here")
    document = Document.parse(LAYER.format(base=base).encode())
    outcome = optimize(document, BuildContext(None), Settings(select=("merge-run",)))
    assert outcome.after.source.text.count("\nRUN") == 1
    found = []
    for number, source in enumerate((outcome.before, outcome.after)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "Dockerfile").write_bytes(source.source.to_bytes())
        tag = f"dockeropt-test-layers-{number}"
        done = apps.build(folder, tag)
        assert done.returncode == 0, done.stderr
        shell = "cat made.txt; stat -c '%a %n' made.txt mode.txt; ls /tmp"
        found.append(apps.docker("run", "--rm", tag, "sh", "-c", shell).stdout)
        apps.docker("rmi", "-f", tag)
    assert found[0] == found[1]
    assert found[0].startswith("fallback\n/work\n644 made.txt")
