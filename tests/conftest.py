import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Servers, running_servers

# By default an example may take 200 ms, and drawing it a second: a machine that does other work as
# well misses both, and speed is no behaviour.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Whose files take up to a minute and more.
_LONG = (
    "activities",
    "api",
    "cli",
    "clouds",
    "end_to_end",
    "infra/control_planes",
    "infra/embedded",
    "infra/node_setup",
    "infra/stacks",
    "workflows",
)
_LONG_FOLDERS = [Path(__file__).parent / folder for folder in _LONG]


def pytest_configure() -> None:
    # A shell starts what runs in its background with interrupts ignored, and programs that tests
    # start would inherit that: no Ctrl-C could ever reach them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave short files for the end, where no process shall wait for another's long one."""
    # Sorting is stable: within both halves the order stays random.
    items.sort(key=lambda item: not any(map(item.path.is_relative_to, _LONG_FOLDERS)))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with running_servers() as found:
        yield found
