"""One lab for the tests of rollouts."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.durability import FaultInjector
from tests.rollout_lab import Lab, running_lab
from tests.servers import Servers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def injector() -> FaultInjector:
    return FaultInjector()


# For a module, not for the session: a lab sends every rollout of this process to its own engine.
@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lab(servers: Servers, injector: FaultInjector) -> AsyncIterator[Lab]:
    async with running_lab(servers, "rollout-lab", injector) as found:
        yield found
