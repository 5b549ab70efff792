"""What the tests of verification share: a stand-in for docker, alone on PATH."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.proof.fake import Fake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """A docker that answers, to `fake.commands()` at once, to others as a process; podman and buildah are not there. Temporary
    folders are made in a folder of the test."""
    folder: Path = tmp_path_factory.mktemp("fake")
    found = Fake(folder)
    found.install("docker")
    (folder / "tmp").mkdir()
    monkeypatch.setenv("PATH", str(found.bin))
    monkeypatch.setattr("tempfile.tempdir", str(folder / "tmp"))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "BUILDX_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.end()
