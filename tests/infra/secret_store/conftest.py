from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from domain.caller import Caller
from infra.database.bootstrap import bootstrap
from tests.infra.secret_store.world import World
from tests.servers import Servers

# Passes that look across all workspaces find those of these tests only.
DATABASE = "bulkhead_secret_store_tests"


@pytest_asyncio.fixture
async def world(session_world: World) -> AsyncIterator[World]:
    yield session_world
    # What a test armed and did not reach is not the next one's.
    session_world.faults.arm(None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_world(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    settings = servers.database.model_copy(update={"name": DATABASE})
    with servers.administrator("postgres") as connection:
        bootstrap(connection, settings)
    directory: Path = tmp_path_factory.mktemp("ledger")
    with servers.administrator(DATABASE) as administrator:
        world = World(settings, servers.openbao("worker"), directory, administrator)
        yield world
        await world.close()


@pytest_asyncio.fixture
async def caller(world: World) -> Caller:
    return await world.new_workspace()
