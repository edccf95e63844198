"""One budget for each credential: what one worker takes, another one has not."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.clouds.cloud import CallCount
from infra.clouds.rate_budget import Credential, RateBudgets
from infra.clouds.registry import profile_of
from infra.database.engine import Database, DatabaseRole
from infra.database.tables import WorkspaceRow
from tests.servers import Servers

PROVIDER = Provider.HCLOUD


@pytest_asyncio.fixture
async def credential(servers: Servers) -> AsyncIterator[Credential]:
    workspace_id = new_id(Prefix.WORKSPACE)
    api = Database(servers.database, DatabaseRole.API)
    async with api.workspace(workspace_id) as session:
        session.add(WorkspaceRow(id=workspace_id, name="test", slug=workspace_id[-30:]))
    await api.close()
    yield Credential(workspace_id=workspace_id, provider=PROVIDER, secret_id=new_id(Prefix.SECRET))


@pytest_asyncio.fixture
async def budgets(servers: Servers) -> AsyncIterator[RateBudgets]:
    database = Database(servers.database, DatabaseRole.WORKER)
    yield RateBudgets(database)
    await database.close()


async def seconds_until(budgets: RateBudgets, credential: Credential, calls: int) -> float:
    """Return after how long a refused one is asked to come again."""
    with pytest.raises(BulkheadError) as refused:
        await budgets.take(credential, calls)
    assert refused.value.reason is Reason.RATE_LIMITED
    assert refused.value.retryable
    return float(refused.value.metadata["retry_after_seconds"])


def within(seconds: float, began: float) -> float:
    """Return how far off a wait may be; what passed since the test began is waited for already."""
    return seconds + time.monotonic() - began


async def test_a_budget_that_is_used_up_says_when_there_is_enough_again(
    budgets: RateBudgets, credential: Credential
) -> None:
    pace, began = profile_of(PROVIDER).pace, time.monotonic()
    await budgets.take(credential, int(pace.most) - 10)
    # Whoever needs many is not overtaken for ever by those who need few.
    await budgets.take(credential, 50)
    wait = await seconds_until(budgets, credential, 2)
    assert wait == pytest.approx(40 / pace.per_second, abs=within(3, began))
    # Another credential has a budget of its own.
    await budgets.take(replace(credential, secret_id=new_id(Prefix.SECRET)), 40)


async def test_calls_beyond_those_that_were_taken_are_owed_and_paid_back_in_time(
    budgets: RateBudgets, credential: Credential
) -> None:
    pace, began = profile_of(PROVIDER).pace, time.monotonic()
    await budgets.take(credential, int(pace.most) - 10)
    await budgets.settle(credential, 50)
    wait = await seconds_until(budgets, credential, 2)
    assert wait == pytest.approx(40 / pace.per_second, abs=within(3, began))
    # However many they were.
    await budgets.settle(credential, 50 * int(pace.most))
    wait = await seconds_until(budgets, credential, 2)
    assert wait == pytest.approx(pace.most / pace.per_second, abs=within(3, began))


async def test_what_a_provider_says_of_its_limit_holds_for_everybody(
    budgets: RateBudgets, credential: Credential
) -> None:
    began = time.monotonic()
    await budgets.take(credential, 1)
    await budgets.block_until(credential, datetime.now(UTC) + timedelta(seconds=90))
    # Of two that were told, the longer pause counts.
    await budgets.block_until(credential, datetime.now(UTC) + timedelta(seconds=5))
    wait = await seconds_until(budgets, credential, 1)
    assert wait == pytest.approx(90, abs=within(5, began))


async def test_calls_that_were_taken_and_not_made_come_back(
    budgets: RateBudgets, credential: Credential
) -> None:
    pace, began = profile_of(PROVIDER).pace, time.monotonic()
    async with budgets.spending(credential, int(pace.most)) as spending:
        calls = CallCount()
        spending.count(calls)
        calls.add(10)
    # All but ten are there, and no more than that.
    await budgets.take(credential, int(pace.most) + 30)
    wait = await seconds_until(budgets, credential, 1)
    assert wait == pytest.approx(41 / pace.per_second, abs=within(3, began))


async def test_whoever_is_refused_more_of_a_budget_does_not_speak_for_the_provider(
    budgets: RateBudgets, credential: Credential
) -> None:
    debt = 2 * int(profile_of(PROVIDER).pace.most)

    async def ask_for_more() -> None:
        async with budgets.spending(credential, 5) as spending:
            await budgets.settle(credential, debt)
            await spending.take(10)

    with pytest.raises(BulkheadError) as refused:
        await ask_for_more()
    assert refused.value.reason is Reason.RATE_LIMITED
    # The others made less than they took, long before the wait that was told is over.
    await budgets.settle(credential, -debt)
    await budgets.take(credential, 1)
