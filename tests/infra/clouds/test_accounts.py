"""An account is opened within its credential's budget, whatever its library really asks."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from domain.caller import Caller, system_caller
from domain.cloud import Provider
from domain.identifiers import Prefix, new_id
from domain.secret import CURRENT, SecretValue
from infra.clouds.accounts import Accounts
from infra.clouds.rate_budget import RateBudgets
from infra.clouds.registry import profile_of
from infra.database.engine import Database, DatabaseRole
from infra.database.records.compute import Account
from infra.database.tables import WorkspaceRow
from infra.local_cloud.serving import served
from infra.secret_store.reader import Consumer, ReadValue, SecretReader
from tests.clouds import aws_case
from tests.servers import Servers

CASE = aws_case.CASE


class Reader(SecretReader):
    """Knows one value."""

    def __init__(self, value: SecretValue) -> None:
        self._value = value

    async def read(
        self,
        caller: Caller,
        secret_id: str,
        selector: str = CURRENT,
        *,
        operation_id: str,
        consumer: Consumer | None = None,
    ) -> ReadValue:
        del caller, secret_id, selector, operation_id, consumer
        return ReadValue("ver_1", 1, self._value)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.AWS) as found:
        yield found


@pytest_asyncio.fixture
async def worker(servers: Servers) -> AsyncIterator[Database]:
    database = Database(servers.database, DatabaseRole.WORKER)
    yield database
    await database.close()


async def test_what_a_library_asks_beyond_the_estimate_is_taken_afterwards(
    servers: Servers, worker: Database, url: str
) -> None:
    workspace_id = new_id(Prefix.WORKSPACE)
    api = Database(servers.database, DatabaseRole.API)
    async with api.workspace(workspace_id) as session:
        session.add(WorkspaceRow(id=workspace_id, name="test", slug=workspace_id[-30:]))
    await api.close()
    account = Account(
        workspace_id=workspace_id,
        compute_config_id=new_id(Prefix.COMPUTE_CONFIG),
        provider=Provider.AWS,
        secret_id=new_id(Prefix.SECRET),
    )
    accounts = Accounts(Reader(CASE.credential(url)), RateBudgets(worker), CASE.settings(url))
    caller = system_caller(workspace_id, "test")
    async with accounts.opened(account, caller, operation_id="test", calls=2) as cloud:
        cloud.inventory(workspace_id)
    assert cloud.calls.made > 2
    with servers.administrator() as administrator:
        ((left,),) = administrator.execute(
            "SELECT calls_left FROM credential_budgets WHERE secret_id = %s", (account.secret_id,)
        ).fetchall()
    assert left == profile_of(Provider.AWS).pace.most - cloud.calls.made
