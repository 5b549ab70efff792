"""Options of the test run, and how it is spread over several processes."""

from __future__ import annotations

import pytest
from hypothesis import settings

# No test of ours is about time, and workers that run side by side slow one another down.
settings.register_profile("side by side", deadline=None)
settings.load_profile("side by side")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-fixtures", action="store_true", help="write report.md of the cases")


@pytest.fixture
def update_fixtures(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-fixtures"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all that builds with Docker to one worker: it looks for what is left behind in the whole daemon."""
    for item in items:
        if item.get_closest_marker("docker") is not None:
            item.add_marker(pytest.mark.xdist_group("docker"))
