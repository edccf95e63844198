import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Servers, running_servers

# By default an example may take 200 ms, and drawing it a second: a machine that does other work as
# well misses both, and speed is no behaviour.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_configure() -> None:
    # A shell starts what runs in its background with interrupts ignored, and programs that tests
    # start would inherit that: no Ctrl-C could ever reach them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with running_servers() as found:
        yield found
