"""A worker with a fault injector, shared by all tests of workflows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio

from tests.durability import FaultInjector
from tests.platform import Platform, running_platform
from tests.servers import Servers
from tests.workflows.hetzner import Hetzner, running_hetzner
from tests.workflows.install.deploying import helm_settings


@dataclass(frozen=True)
class Injected:
    """A platform whose worker has the injector inside, and makes machines at Hetzner's API here."""

    platform: Platform
    injector: FaultInjector
    hetzner: Hetzner


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def injected(servers: Servers) -> AsyncIterator[Injected]:
    """Run one worker for all tests of workflows; each test arms the injector for itself."""
    injector = FaultInjector()
    with running_hetzner(servers.home) as hetzner:
        async with running_platform(
            servers,
            injector,
            providers=hetzner.providers,
            stacks=hetzner.stacks,
            helm=helm_settings(servers.home),
        ) as platform:
            yield Injected(platform, injector, hetzner)
