"""Options of the test run, and how it is spread over several processes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

_DOCKER = "docker.py::"
# No test of ours is about time, and workers that run side by side slow one another down.
settings.register_profile("side by side", deadline=None)
settings.load_profile("side by side")

# A shell's job in the background is born deaf to these, and so would be every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


class _Spread(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Every test goes to the worker that is free; all that builds with Docker to one, since it looks for what is left behind in
    the whole daemon."""

    def _split_scope(self, nodeid: str) -> str:
        return "docker" if _DOCKER in nodeid else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Spread:
    return _Spread(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hold to the names by which the tests are spread."""
    for item in items:
        if (item.get_closest_marker("docker") is not None) != (_DOCKER in item.nodeid):
            raise pytest.UsageError(
                f"{item.nodeid}: tests with the marker docker, and no others, are in files called *docker.py"
            )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-fixtures", action="store_true", help="write report.md of the cases")


@pytest.fixture
def update_fixtures(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-fixtures"))
