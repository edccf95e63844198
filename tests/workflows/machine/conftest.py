"""One cluster with a keeper, shared by all tests of machines' workflows."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.workflows.conftest import Injected
from tests.workflows.machine.fleet import Fleet, running_fleet


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet(injected: Injected) -> AsyncIterator[Fleet]:
    """Make the cluster once; each test has machines of its own."""
    async with running_fleet(injected.platform) as made:
        yield made
