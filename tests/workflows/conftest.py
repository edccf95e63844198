"""A worker with a fault injector, shared by all tests of workflows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio

from tests.durability import FaultInjector
from tests.platform import Platform, running_platform
from tests.servers import Servers


@dataclass(frozen=True)
class Injected:
    """A platform whose worker has the injector inside."""

    platform: Platform
    injector: FaultInjector


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def injected(servers: Servers) -> AsyncIterator[Injected]:
    """Run one worker for all tests of workflows; each test arms the injector for itself."""
    injector = FaultInjector()
    async with running_platform(servers, injector) as platform:
        yield Injected(platform, injector)
