"""One lab for the tests of rollouts."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.durability import FaultInjector
from tests.rollout_lab import Lab, running_lab
from tests.servers import Servers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def injector() -> FaultInjector:
    return FaultInjector()


# For a module, not for the session: a lab sends every rollout of this process to its own engine.
@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_lab(servers: Servers, injector: FaultInjector) -> AsyncIterator[Lab]:
    async with running_lab(servers, "rollout-lab", injector) as found:
        yield found


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """Have the lab as it is at first, whatever the test before set and how it ended."""
    shared_lab.set()
    yield shared_lab
    shared_lab.set()
