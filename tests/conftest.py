import signal
from collections.abc import Iterator

import pytest

from tests.servers import Servers, running_servers


def pytest_configure() -> None:
    # A shell starts what runs in its background with interrupts ignored, and programs that tests
    # start would inherit that: no Ctrl-C could ever reach them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with running_servers() as found:
        yield found
