"""One cluster and a database of their own: observers find every install that there is."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from infra.database.bootstrap import bootstrap
from tests.infra.control_planes.host import Host, running_host
from tests.infra.installs.world import World
from tests.servers import Servers

DATABASE = "bulkhead_install_tests"


@pytest.fixture(scope="session")
def install_host(servers: Servers) -> Iterator[Host]:
    with running_host(servers, "installs") as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(servers: Servers, install_host: Host) -> AsyncIterator[World]:
    settings = servers.database.model_copy(update={"name": DATABASE})
    with servers.administrator("postgres") as connection:
        bootstrap(connection, settings)
    with install_host.cluster() as cluster:
        found = World(settings, install_host, cluster)
        try:
            await found.prepare()
            yield found
        finally:
            await found.close()


@pytest_asyncio.fixture(autouse=True)
async def nothing_left(world: World) -> AsyncIterator[None]:
    """Forget the installs of each test, so that the observers of the next look at its own alone."""
    yield
    await world.forget_installs()
