"""Statements that the driver runs in a session's transaction: rows, errors, a server that goes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.exc import IntegrityError

from domain.errors import BulkheadError, Reason
from infra.database.engine import Database, DatabaseRole
from infra.database.statements import run_sql, violated_by
from tests.servers import Servers

_CONNECTIONS = 4


@pytest_asyncio.fixture
async def database(servers: Servers) -> AsyncIterator[Database]:
    opened = Database(servers.database, DatabaseRole.WORKER)
    yield opened
    await opened.close()


async def test_rows_have_the_names_and_the_types_of_the_statement(database: Database) -> None:
    sql = 'SELECT %(number)s::int AS number, \'{"a": [1]}\'::jsonb AS "document", now() AS "now"'
    async with database.transaction() as session:
        row = (await run_sql(session, sql, {"number": 7})).one()
        nothing = await run_sql(session, "SET LOCAL work_mem = '1MB'", {})
    assert (row.number, row.document) == (7, {"a": [1]})
    assert row.now.tzinfo is not None
    assert nothing.all() == []


async def test_they_are_committed_and_rolled_back_with_the_session(database: Database) -> None:
    setting = "SELECT set_config('app.workspace_id', 'ws_1', true)"
    async with database.transaction() as session:
        before = (await run_sql(session, "SELECT txid_current() AS id", {})).one().id
        await run_sql(session, setting, {})
        after = (await run_sql(session, "SELECT txid_current() AS id", {})).one().id
    async with database.transaction() as session:
        read = "SELECT current_setting('app.workspace_id', true) AS found"
        found = (await run_sql(session, read, {})).one().found
    assert before == after
    assert not found


async def test_a_violated_constraint_is_the_error_of_the_sessions_own_methods(
    database: Database,
) -> None:
    sql = (
        "DO $$ BEGIN RAISE EXCEPTION 'twice'"
        " USING ERRCODE = 'unique_violation', CONSTRAINT = 'only_one'; END $$"
    )
    with pytest.raises(IntegrityError) as failure:
        async with database.transaction() as session:
            await run_sql(session, sql, {})
    assert violated_by(failure.value) == "only_one"


async def test_one_transaction_fails_when_the_server_ended_every_connection(
    database: Database, servers: Servers
) -> None:
    all_are_open = asyncio.Barrier(_CONNECTIONS)

    async def connected() -> int:
        async with database.transaction() as session:
            pid = (await run_sql(session, "SELECT pg_backend_pid() AS pid", {})).one().pid
            await all_are_open.wait()
            return int(pid)

    pids = await asyncio.gather(*(connected() for _ in range(_CONNECTIONS)))
    assert len(set(pids)) == _CONNECTIONS
    await asyncio.to_thread(_end, servers, pids)
    failures = [await _failure_of(database) for _ in range(_CONNECTIONS)]
    assert failures == [Reason.DEPENDENCY_UNAVAILABLE, None, None, None]


async def _failure_of(database: Database) -> Reason | None:
    try:
        async with database.transaction() as session:
            await run_sql(session, "SELECT 1", {})
    except BulkheadError as error:
        return error.reason
    return None


def _end(servers: Servers, pids: list[int]) -> None:
    with servers.administrator() as administrator:
        administrator.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) AS pid", (pids,)
        )
