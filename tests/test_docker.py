"""With a Docker daemon: layers that were joined leave the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer.dockerfile.document import Document
from optimizer.engine import optimize
from optimizer.facts.context import BuildContext
from optimizer.settings import Settings
from tests import apps

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", autouse=True)
def _daemon() -> None:
    if reason := apps.why_no_daemon():
        pytest.skip(reason)


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
        done = apps.docker("build", "--network=host", "-t", tag, str(folder))
        assert done.returncode == 0, done.stderr
        shell = "cat made.txt; stat -c '%a %n' made.txt mode.txt; ls /tmp"
        found.append(apps.docker("run", "--rm", tag, "sh", "-c", shell).stdout)
        apps.docker("rmi", "-f", tag)
    assert found[0] == found[1]
    assert found[0].startswith("fallback\n/work\n644 made.txt")
