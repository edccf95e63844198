"""One cluster with a keeper, shared by all tests of machines' workflows."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.workflows.conftest import Injected
from tests.workflows.machine.fleet import Fleet, running_fleet


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet(injected: Injected) -> AsyncIterator[Fleet]:
    """Make the cluster once; each test has machines of its own."""
    async with running_fleet(injected.platform) as made:
        yield made


@pytest_asyncio.fixture(autouse=True)
async def tidy_after_a_failure(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Have one test that fails be one failure: what it left is not there for the next one."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before and "fleet" in request.fixturenames:
        fleet: Fleet = request.getfixturevalue("fleet")
        await fleet.tidy()
