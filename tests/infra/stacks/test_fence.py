"""The fence around the states, asked of the database itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id, opaque_part
from domain.stack import StackAction, StackProgram, StackState
from infra.database.engine import DatabaseRole
from infra.database.records.compute import ComputeRecords
from infra.embedded.database_copy import load_database, save_database
from infra.stacks.backend import StateBackend, role_of, table_of
from infra.stacks.leases import hold
from infra.stacks.request import StackRequest, StackSecrets
from infra.stacks.runs import StackRuns
from infra.stacks.sessions import new_holder
from tests.infra.stacks.laboratory import Laboratory, new_workspace


@contextmanager
def engine_connection(
    laboratory: Laboratory, fence: int | None, workspace_id: str | None = None
) -> Iterator[psycopg.Connection]:
    """Connect as the engine does: by the environment of a run."""
    workspace_id = workspace_id or laboratory.workspace_id
    settings = laboratory.servers.database
    backend = StateBackend(settings)
    environment = backend.environment(workspace_id, 0)
    with psycopg.connect(
        host=settings.host,
        port=settings.port,
        dbname=settings.name,
        user=role_of(workspace_id),
        password=environment["PGPASSWORD"],
        options="" if fence is None else f"-c bulkhead.fence={fence}",
        autocommit=True,
    ) as connection:
        yield connection


def states(workspace_id: str) -> sql.Identifier:
    return sql.Identifier(table_of(workspace_id), table_of(workspace_id))


def write_state(connection: psycopg.Connection, workspace_id: str, stack: str) -> None:
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (key, data) VALUES (%s, '{{}}')"
            " ON CONFLICT (key) DO UPDATE SET data = '{{}}'"
        ).format(states(workspace_id)),
        (f"bulkhead/.pulumi/stacks/bulkhead/{stack}.json",),
    )


@pytest_asyncio.fixture
async def table(laboratory: Laboratory) -> str:
    backend = StateBackend(laboratory.servers.database)
    await backend.ensure_table(laboratory.workspace_id)
    await backend.ensure_table(laboratory.workspace_id)
    await backend.close()
    return laboratory.workspace_id


async def test_a_runner_whose_stack_was_taken_over_writes_nothing(
    laboratory: Laboratory, table: str
) -> None:
    program = await laboratory.plan_network()
    lease = await take(laboratory, program)
    with engine_connection(laboratory, lease) as stale:
        write_state(stale, table, program.name)
        newer = await take(laboratory, program)
        for statement in ("DELETE FROM {}", "UPDATE {} SET data = '{{}}'"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                stale.execute(sql.SQL(statement).format(states(table)))
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            write_state(stale, table, program.name)
    with engine_connection(laboratory, newer) as holder:
        write_state(holder, table, program.name)


async def test_an_engine_with_a_stale_fence_is_told_that_it_lost_the_stack(
    laboratory: Laboratory, table: str
) -> None:
    program = await laboratory.plan_network()
    backend = StateBackend(laboratory.servers.database)
    runs = StackRuns(laboratory.settings, backend)
    secrets = StackSecrets(passphrase="a passphrase", credential=laboratory.cloud.environment())
    async with hold(laboratory.records, table, program.stack_id) as held:
        request = StackRequest(
            action=StackAction.UP,
            program=program,
            operation_id=new_id(Prefix.OPERATION),
            fence=held.lease.fence - 1,
            is_new=True,
        )
        with pytest.raises(BulkheadError) as failure:
            await runs.run(request, secrets, held, laboratory.cloud.calls)
    await backend.close()
    assert (failure.value.reason, failure.value.retryable) == (Reason.ABORTED, False)
    assert await laboratory.inventory(program) == []


async def test_a_lease_that_was_given_back_writes_nothing(
    laboratory: Laboratory, table: str
) -> None:
    program = await laboratory.plan_network()
    async with hold(laboratory.records, program.workspace_id, program.stack_id) as held:
        fence = held.lease.fence
    with (
        engine_connection(laboratory, fence) as stale,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState),
    ):
        write_state(stale, table, program.name)


@pytest.mark.parametrize("fence", [None, 0])
async def test_nobody_writes_without_a_fence(
    laboratory: Laboratory, table: str, fence: int | None
) -> None:
    program = await laboratory.plan_network()
    await take(laboratory, program)
    with (
        engine_connection(laboratory, fence) as stranger,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState),
    ):
        write_state(stranger, table, program.name)


async def test_a_run_has_the_states_of_its_own_workspace_and_nothing_else(
    laboratory: Laboratory, table: str
) -> None:
    other = await new_workspace(laboratory.servers, laboratory.openbao)
    backend = StateBackend(laboratory.servers.database)
    await backend.ensure_table(other)
    await backend.close()
    program = await laboratory.plan_network()
    fence = await take(laboratory, program)
    statements = (
        sql.SQL("SELECT * FROM {}").format(states(other)),
        sql.SQL("INSERT INTO {} (key, data) VALUES ('x', '{{}}')").format(states(other)),
        sql.SQL("CREATE FUNCTION {}.f() RETURNS int LANGUAGE sql RETURN 1").format(
            sql.Identifier(table_of(other))
        ),
        sql.SQL("SET ROLE {}").format(sql.Identifier(role_of(other))),
        sql.SQL("SET ROLE {}").format(sql.Identifier(DatabaseRole.STACKS)),
        sql.SQL("CREATE ROLE another"),
        sql.SQL("CREATE TABLE pulumi.mine ()"),
        sql.SQL("SELECT 1 FROM stacks"),
    )
    with engine_connection(laboratory, fence) as connection:
        write_state(connection, table, program.name)
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    # Nor does the password open anything as somebody else.
    with (
        pytest.raises(psycopg.OperationalError),
        psycopg.connect(
            host=laboratory.servers.database.host,
            port=laboratory.servers.database.port,
            dbname=laboratory.servers.database.name,
            user=role_of(other),
            password=StateBackend(laboratory.servers.database).environment(table, 0)["PGPASSWORD"],
        ),
    ):
        pass


async def test_the_states_of_an_older_release_are_kept_and_closed_too(
    laboratory: Laboratory,
) -> None:
    workspace_id, settings = laboratory.workspace_id, laboratory.servers.database
    program = await laboratory.plan_network()
    fence = await take(laboratory, program)
    name = table_of(workspace_id)
    with laboratory.servers.administrator() as administrator:
        administrator.execute(
            sql.SQL(
                "CREATE TABLE {0} (key text PRIMARY KEY, data json NOT NULL,"
                " updated_at timestamptz NOT NULL DEFAULT now());"
                "INSERT INTO {0} VALUES ('kept', '{{}}'); ALTER TABLE {0} OWNER TO {1}"
            ).format(sql.Identifier("pulumi", name), sql.Identifier(DatabaseRole.STACKS))
        )
    backend = StateBackend(settings)
    await backend.ensure_table(workspace_id)
    await backend.close()
    with engine_connection(laboratory, fence) as connection:
        (kept,) = connection.execute(
            sql.SQL("SELECT key FROM {}").format(states(workspace_id))
        ).fetchall()
        assert kept == ("kept",)
        write_state(connection, workspace_id, program.name)


@pytest.mark.full
async def test_a_copy_of_the_states_is_put_back_on_a_server_without_their_roles(
    laboratory: Laboratory, table: str, tmp_path: Path
) -> None:
    postgresql, name = laboratory.servers.stack.postgresql, laboratory.servers.database.name
    file, copied = tmp_path / "copy", f"copied_{table_of(table)}"
    await asyncio.to_thread(save_database, postgresql, name, file)
    role, other = sql.Identifier(role_of(table)), sql.Identifier("of_another_server")
    rename = sql.SQL("ALTER ROLE {} RENAME TO {}")
    with laboratory.servers.administrator() as administrator:
        administrator.execute(rename.format(role, other))
        try:
            await asyncio.to_thread(load_database, postgresql, copied, file)
            with laboratory.servers.administrator(copied) as connection:
                owner = connection.execute(
                    "SELECT tableowner FROM pg_tables WHERE schemaname = %s", (table_of(table),)
                ).fetchone()
            assert owner == (role_of(table),)
        finally:
            administrator.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copied))
            )
            administrator.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
            administrator.execute(rename.format(other, role))


async def test_a_stack_is_held_by_one_at_a_time(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    async with hold(laboratory.records, program.workspace_id, program.stack_id):
        with pytest.raises(BulkheadError) as failure:
            async with hold(laboratory.records, program.workspace_id, program.stack_id):
                pass
    assert (failure.value.reason, failure.value.retryable) == (Reason.ABORTED, True)


async def test_a_holder_that_ended_on_this_host_holds_nothing(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    host, _, _, unique = new_holder().split("/")
    # A process that is alive, and began at another time than the holder did.
    dead = f"{host}/1/0/{unique}"
    await laboratory.records.take_lease(
        program.workspace_id, program.stack_id, dead, lambda _: False
    )
    async with hold(laboratory.records, program.workspace_id, program.stack_id):
        pass


async def test_planning_a_network_again_finds_the_one_that_there_is(
    laboratory: Laboratory,
) -> None:
    program = await laboratory.plan_network()
    row = await laboratory.row_of(program)
    again = await laboratory.records.plan(
        type(row)(**{**row.model_dump(), "id": new_id(Prefix.STACK)})
    )
    assert opaque_part(again.id) == opaque_part(program.stack_id)


async def take(laboratory: Laboratory, program: StackProgram) -> int:
    lease = await laboratory.records.take_lease(
        program.workspace_id, program.stack_id, new_holder(), lambda _: True
    )
    return lease.fence


async def test_a_stack_that_is_removed_is_not_made_again_by_who_comes_late(
    laboratory: Laboratory,
) -> None:
    program = await laboratory.plan_network()
    await ComputeRecords(laboratory.database).drop_planned(await laboratory.row_of(program))
    with pytest.raises(BulkheadError) as failure:
        await laboratory.run(StackAction.UP, program)
    assert (failure.value.reason, failure.value.retryable) == (Reason.ABORTED, False)
    assert (await laboratory.row_of(program)).state is StackState.REMOVED
    assert await laboratory.inventory(program) == []
