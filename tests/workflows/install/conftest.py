"""One cluster with a simulated node, shared by all tests of installs' workflows."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.workflows.conftest import Injected
from tests.workflows.install.site import Site, running_site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(injected: Injected) -> AsyncIterator[Site]:
    """Make the cluster once; each test has installs of its own."""
    async with running_site(injected.platform) as made:
        yield made
