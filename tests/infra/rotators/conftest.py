from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from domain.identifiers import Prefix, new_id
from infra.clouds.rate_budget import RateBudgets
from infra.database.engine import Database, DatabaseRole
from infra.database.tables import WorkspaceRow
from tests.infra.rotators.rotations import CallBudgets
from tests.infra.rotators.tls_entrance import TlsEntrance, tls_entrance_to
from tests.servers import Servers


@pytest.fixture(scope="session")
def tls_entrance(servers: Servers) -> Iterator[TlsEntrance]:
    with tls_entrance_to(servers.database.port) as found:
        yield found


@pytest_asyncio.fixture
async def call_budgets(servers: Servers) -> AsyncIterator[CallBudgets]:
    """The budgets of a workspace whose cloud credentials rotate."""
    workspace_id = new_id(Prefix.WORKSPACE)
    api = Database(servers.database, DatabaseRole.API)
    async with api.workspace(workspace_id) as session:
        session.add(WorkspaceRow(id=workspace_id, name="test", slug=workspace_id[-30:]))
    await api.close()
    worker = Database(servers.database, DatabaseRole.WORKER)
    yield CallBudgets(RateBudgets(worker), workspace_id, worker)
    await worker.close()
