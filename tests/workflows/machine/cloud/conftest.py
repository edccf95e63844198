"""The engine, a cluster whose servers are made at Hetzner's API, and a customer for each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.workflows.conftest import Injected
from tests.workflows.hetzner import Hetzner, ensure_engine
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.fleet import Fleet


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cloud_fleet(injected: Injected, fleet: Fleet) -> AsyncIterator[Fleet]:
    """Have made servers join the fleet's cluster."""
    await asyncio.to_thread(ensure_engine, injected.hetzner.stacks)
    with injected.hetzner.servers.joining(fleet):
        yield fleet


@pytest.fixture
def hetzner(injected: Injected) -> Iterator[Hetzner]:
    """Give the API, and heal it afterwards."""
    yield injected.hetzner
    injected.hetzner.heal()
    injected.hetzner.servers.silent = False
    injected.hetzner.servers.copying.set()


@pytest_asyncio.fixture
async def customer(cloud_fleet: Fleet, hetzner: Hetzner) -> AsyncIterator[Customer]:
    """Give a customer with an empty account."""
    made = Customer(cloud_fleet, hetzner)
    await made.open()
    yield made
    made.close()
