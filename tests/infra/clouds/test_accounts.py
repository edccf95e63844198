"""An account is opened within its credential's budget, whatever its library really asks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from domain.caller import Caller, system_caller
from domain.cloud import Provider
from domain.cloud_account import Account
from domain.identifiers import Prefix, new_id
from domain.secret import CURRENT, SecretValue
from infra.clouds.accounts import Accounts
from infra.clouds.cloud import Cloud
from infra.clouds.rate_budget import RateBudgets
from infra.clouds.registry import profile_of
from infra.database.engine import Database, DatabaseRole
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


@dataclass(frozen=True)
class Opening:
    """An account that a test opens, and its budget."""

    accounts: Accounts
    account: Account
    servers: Servers

    def opened(self, *, calls: int) -> AbstractAsyncContextManager[Cloud]:
        caller = system_caller(self.account.workspace_id, "test")
        return self.accounts.opened(self.account, caller, operation_id="test", calls=calls)

    def spent(self) -> float:
        """Return what is missing of the budget, as it was left."""
        with self.servers.administrator() as administrator:
            ((left,),) = administrator.execute(
                "SELECT calls_left FROM credential_budgets WHERE secret_id = %s",
                (self.account.secret_id,),
            ).fetchall()
        return profile_of(Provider.AWS).pace.most - float(left)


@pytest_asyncio.fixture
async def opening(servers: Servers, worker: Database, url: str) -> Opening:
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
    return Opening(accounts, account, servers)


async def test_what_a_library_asks_beyond_the_estimate_is_taken_afterwards(
    opening: Opening,
) -> None:
    async with opening.opened(calls=2) as cloud:
        await asyncio.to_thread(cloud.inventory, opening.account.workspace_id)
    assert cloud.calls.made > 2
    assert await asyncio.to_thread(opening.spent) == cloud.calls.made


async def test_what_was_taken_and_not_asked_comes_back(opening: Opening) -> None:
    async with opening.opened(calls=50) as cloud:
        assert await asyncio.to_thread(opening.spent) == 50
    assert await asyncio.to_thread(opening.spent) == cloud.calls.made


async def test_what_the_engine_asks_is_taken_from_the_same_budget(opening: Opening) -> None:
    async with opening.opened(calls=2) as cloud:
        cloud.calls.add(40)
    assert await asyncio.to_thread(opening.spent) == cloud.calls.made
    assert cloud.calls.made >= 40
