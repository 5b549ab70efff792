"""Every Dockerfile of the corpus, where the corpus is there (DOCKEROPT_CORPUS names its folder)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.corpus import count

FOLDER = os.environ.get("DOCKEROPT_CORPUS", "")
# What is no Dockerfile to BuildKit either, by name, with the cause.
UNREADABLE = {"env_no_value/Dockerfile": "ENV with a name and no value"}


@pytest.mark.skipif(not FOLDER, reason="DOCKEROPT_CORPUS does not name the folder of real Dockerfiles")
def test_the_corpus_is_read_as_buildkit_reads_it_and_survives_every_rewrite() -> None:
    counts = count(Path(FOLDER))
    assert counts.files > 200
    assert counts.differ == []
    assert counts.broken == []
    strangers = [line for line in counts.unreadable if not any(name in line for name in UNREADABLE)]
    assert strangers == []
    assert counts.equal == counts.files - len(counts.unreadable)
