"""After a restore nothing is served until what was purged is gone again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlmodel import select

from domain.caller import Role, system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretState, VersionPlace, VersionState
from domain.tokens import TokenKind, display_prefix_of, hash_of, new_token
from infra.database.bootstrap import bootstrap
from infra.database.queries.workspace import remove_api_token
from infra.database.records.audit import add_audit_event
from infra.database.records.secret import switch_version
from infra.database.tables import ApiTokenRow, SecretVersionRow
from infra.openbao.operator import Operator
from infra.openbao.policies import OPERATOR
from infra.openbao.restore_marker import RestoreMarker
from infra.openbao.signing import ApiOpenBao
from infra.openbao.values import Presence
from infra.secret_store.reader import SecretReader
from infra.secret_store.serving import ServingGate
from tests.infra.openbao.own_server import OpenBaoServer, own_server
from tests.infra.secret_store.faults import Crash
from tests.infra.secret_store.world import Secret, World, fresh_value
from tests.servers import Servers

DATABASE = "bulkhead_restore_tests"
BACKUP = "bulkhead_restore_tests_backup"
# Some of the last of the ports that the session claimed: no cluster of a test gets there.
LAST_PORTS = 8 * 96
RESTORED_WITHIN_SECONDS = 60.0
MOVES = 20


@pytest.fixture(scope="module")
def server(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBaoServer]:
    port = servers.control_planes.first_port + LAST_PORTS
    with own_server(tmp_path_factory.mktemp("openbao"), port) as found:
        found.start()
        yield found


class Restorable:
    """A world of its own that can be saved and put back, and the API's gate to it."""

    def __init__(self, servers: Servers, server: OpenBaoServer, directory: Path) -> None:
        self._servers, self._server, self._directory = servers, server, directory
        self._settings = servers.database.model_copy(update={"name": DATABASE})
        self._operator = Operator(server.settings(OPERATOR))
        self._api = ApiOpenBao(server.settings("api"))
        self._open = contextlib.ExitStack()
        self.world = self._new_world()

    def _new_world(self) -> World:
        administrator = self._open.enter_context(self._servers.administrator(DATABASE))
        return World(
            self._settings, self._server.settings("worker"), self._directory, administrator
        )

    async def is_served(self) -> bool:
        """Ask as an API process does that has just started."""
        gate = ServingGate(self._api.marker, self.world.restored_at_file)
        try:
            async with self.world.api.transaction() as session:
                await gate.require_serving(session)
        except BulkheadError as error:
            return error.reason is not Reason.DEPENDENCY_UNAVAILABLE
        return True

    def save_openbao(self) -> Callable[[], None]:
        file = self._directory / "snapshot"
        file.touch()
        self._operator.save_snapshot(file)

        def put_back() -> None:
            later = self._write_what_no_snapshot_has()
            self._operator.restore_snapshot(file)
            deadline = time.monotonic() + RESTORED_WITHIN_SECONDS
            # It answers for a moment as what it was, and then not at all.
            while not self._has_forgotten(later):
                assert time.monotonic() < deadline
                time.sleep(0.1)

        return put_back

    def _write_what_no_snapshot_has(self) -> VersionPlace:
        place = VersionPlace(
            workspace_id=new_id(Prefix.WORKSPACE),
            secret_id=new_id(Prefix.SECRET),
            version_id=new_id(Prefix.SECRET_VERSION),
        )
        self.world.openbao.ensure_secret_space(place.workspace_id)
        self.world.values.write(place, fresh_value())
        return place

    def _has_forgotten(self, place: VersionPlace) -> bool:
        try:
            return self.world.values.look(place) is Presence.ABSENT
        except BulkheadError as error:
            # Without the workspace's place nobody can log in to it.
            return error.reason is Reason.FAILED_PRECONDITION

    async def save_database(self) -> None:
        await self._copy(DATABASE, BACKUP)

    async def put_database_back(self) -> None:
        await self._copy(BACKUP, DATABASE)

    async def _copy(self, source: str, target: str) -> None:
        await self.close()
        with self._servers.administrator("postgres") as administrator:
            administrator.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
            administrator.execute(f"CREATE DATABASE {target} TEMPLATE {source}")
        self.world = self._new_world()

    def audit_lines(self) -> list[str]:
        with self._servers.administrator(DATABASE) as administrator:
            query = "SELECT to_jsonb(a)::text FROM audit_events a"
            return [line for (line,) in administrator.execute(query)]

    def keep_audit_lines(self, lines: list[str]) -> None:
        """Keep the audit log of a replaced database, as a restore does."""
        with self._servers.administrator(DATABASE) as administrator:
            administrator.cursor().executemany(
                "INSERT INTO audit_events SELECT a.*"
                " FROM jsonb_populate_record(NULL::audit_events, %s::jsonb) a"
                " ON CONFLICT DO NOTHING",
                [(line,) for line in lines],
            )

    async def close(self) -> None:
        await self.world.close()
        self._open.close()


@pytest_asyncio.fixture
async def restorable(
    servers: Servers, server: OpenBaoServer, tmp_path: Path
) -> AsyncIterator[Restorable]:
    with servers.administrator("postgres") as administrator:
        administrator.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        bootstrap(administrator, servers.database.model_copy(update={"name": DATABASE}))
    found = Restorable(servers, server, tmp_path)
    # The server may remember an earlier test's database, which is what a restore looks like.
    await found.world.guard.check()
    yield found
    await found.close()


async def prepare(restorable: Restorable) -> tuple[Secret, Secret]:
    world = restorable.world
    caller = await world.new_workspace()
    kept = await world.new_secret(caller, versions=2)
    purged = await world.new_secret(caller, versions=2)
    assert await world.guard.check() is None
    assert await restorable.is_served()
    return kept, purged


async def end(restorable: Restorable, kept: Secret, purged: Secret) -> None:
    """Do what the backup does not know of."""
    world = restorable.world
    await world.destroy(kept, list(kept.values)[1])
    await world.purge(purged)
    assert await world.guard.check() is None
    assert await restorable.is_served()


async def verify_made_good(restorable: Restorable, kept: Secret, purged: Secret) -> None:
    world = restorable.world
    assert not await restorable.is_served()
    assert await world.guard.check() is not None
    assert await restorable.is_served()
    assert await world.row(purged) is None
    for version_id in purged.values:
        assert await world.look(purged, version_id) is Presence.ABSENT
    states = [version.state for version in await world.versions(kept)]
    assert states == [VersionState.ENABLED, VersionState.DESTROYED]
    assert await world.violations(kept) == []
    assert await world.guard.check() is None


async def test_values_that_a_restored_openbao_has_again_are_purged_before_any_is_served(
    restorable: Restorable,
) -> None:
    kept, purged = await prepare(restorable)
    put_back = restorable.save_openbao()
    await end(restorable, kept, purged)
    put_back()
    first = next(iter(purged.values))
    assert await restorable.world.look(purged, first) is Presence.VALUE
    await verify_made_good(restorable, kept, purged)


async def test_secrets_that_a_restored_database_has_again_are_removed_before_any_is_served(
    restorable: Restorable,
) -> None:
    kept, purged = await prepare(restorable)
    await restorable.save_database()
    await end(restorable, kept, purged)
    await restorable.put_database_back()
    assert await restorable.world.row(purged) is not None
    await verify_made_good(restorable, kept, purged)
    events = await restorable.world.events(purged.place.workspace_id, "secret.purge_again")
    assert len(events) == 1


async def test_a_restore_of_both_is_noticed_by_what_is_written_down_of_it(
    restorable: Restorable,
) -> None:
    kept, purged = await prepare(restorable)
    put_back = restorable.save_openbao()
    await restorable.save_database()
    await end(restorable, kept, purged)
    put_back()
    lines = restorable.audit_lines()
    await restorable.put_database_back()
    restorable.keep_audit_lines(lines)
    RestoreMarker(snapshot_sha256="0" * 64).write(restorable.world.restored_at_file)
    await verify_made_good(restorable, kept, purged)
    assert await restorable.world.look(kept, list(kept.values)[1]) is Presence.GONE


async def test_a_restore_of_both_is_noticed_by_the_ledger_alone(restorable: Restorable) -> None:
    kept, purged = await prepare(restorable)
    put_back = restorable.save_openbao()
    await restorable.save_database()
    await end(restorable, kept, purged)
    put_back()
    await restorable.put_database_back()
    world = restorable.world
    assert await world.guard.check() is not None
    assert await world.row(purged) is None
    assert await world.guard.check() is None


async def put_back_older(restorable: Restorable) -> None:
    """Put the database back, and keep the audit log, as a restore does."""
    assert await restorable.world.guard.check() is None
    lines = restorable.audit_lines()
    await restorable.put_database_back()
    restorable.keep_audit_lines(lines)
    assert await restorable.world.guard.check() is not None
    assert await restorable.is_served()


async def switch(world: World, secret: Secret, version_id: str, *states: VersionState) -> None:
    """Disable and enable a version as the API does."""
    verbs = {VersionState.DISABLED: "disable", VersionState.ENABLED: "enable"}
    for state in states:
        async with world.database.workspace(secret.place.workspace_id) as session:
            await world.hold(session, secret)
            key = (secret.place.workspace_id, version_id)
            await switch_version(session, await session.get_one(SecretVersionRow, key), state)
        await world.audited(secret.version(version_id), f"secret_version.{verbs[state]}")


async def test_a_version_that_was_disabled_since_is_disabled_again_unless_it_was_enabled(
    restorable: Restorable,
) -> None:
    kept, _ = await prepare(restorable)
    await restorable.save_database()
    leaked, mended = kept.values
    await switch(restorable.world, kept, leaked, VersionState.DISABLED)
    await switch(restorable.world, kept, mended, VersionState.DISABLED, VersionState.ENABLED)
    await put_back_older(restorable)
    world = restorable.world
    states = [version.state for version in await world.versions(kept)]
    assert states == [VersionState.DISABLED, VersionState.ENABLED]
    again = await world.events(kept.place.workspace_id, "secret_version.disable_again")
    assert [line.details["version_id"] for line in again] == [leaked]
    assert await world.violations(kept) == []


async def test_a_version_that_is_enabled_after_a_restore_stays_so_with_the_next_one(
    restorable: Restorable,
) -> None:
    kept, _ = await prepare(restorable)
    await restorable.save_database()
    leaked = next(iter(kept.values))
    await switch(restorable.world, kept, leaked, VersionState.DISABLED)
    await put_back_older(restorable)
    await switch(restorable.world, kept, leaked, VersionState.ENABLED)
    await put_back_older(restorable)
    states = [version.state for version in await restorable.world.versions(kept)]
    assert states == [VersionState.ENABLED, VersionState.ENABLED]


DELETED = ("secret.delete", {"force": "false"})


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([DELETED], SecretState.SOFT_DELETED),
        ([DELETED, ("secret.undelete", {})], SecretState.ACTIVE),
        ([("secret.delete", {"force": "true"})], SecretState.PURGING),
        ([DELETED, ("secret.approve_purge", {})], SecretState.PURGING),
    ],
    ids=["deleted", "deleted and restored", "deleted by force", "deleted and purged"],
)
async def test_a_secret_that_was_deleted_since_is_deleted_again(
    restorable: Restorable, lines: list[tuple[str, dict[str, str]]], state: SecretState
) -> None:
    kept, _ = await prepare(restorable)
    await restorable.save_database()
    world, workspace = restorable.world, kept.place.workspace_id
    for action, details in lines:
        async with world.database.workspace(workspace) as session:
            caller = system_caller(workspace, "test")
            secret_id = kept.place.secret_id
            add_audit_event(session, caller, action, "secret", secret_id, details=details)
    await put_back_older(restorable)
    row = await restorable.world.row(kept)
    assert row is not None
    assert row.state is state


async def new_token_in(world: World, workspace: str, name: str) -> str:
    token, token_id = new_token(TokenKind.WORKSPACE), new_id(Prefix.API_TOKEN)
    async with world.api.workspace(workspace) as session:
        session.add(
            ApiTokenRow(
                workspace_id=workspace,
                id=token_id,
                name=name,
                role=Role.ADMIN,
                prefix=display_prefix_of(token),
                token_hash=hash_of(token),
                created_by=new_id(Prefix.USER),
            )
        )
    return token_id


async def revoke_one_of_two(restorable: Restorable, workspace: str) -> tuple[str, str]:
    """Return a token that was revoked since the backup, and one that somebody may not revoke."""
    stolen, other = [
        await new_token_in(restorable.world, workspace, name) for name in ("stolen", "other")
    ]
    await restorable.save_database()
    async with restorable.world.api.workspace(workspace) as session:
        assert await remove_api_token(session, stolen)
        for token_id, outcome in ((stolen, "allowed"), (other, "denied")):
            caller, action = system_caller(workspace, "test"), "api_token.delete"
            add_audit_event(session, caller, action, "api_token", token_id, outcome=outcome)
    return stolen, other


async def tokens_of(world: World, workspace: str) -> set[str]:
    async with world.api.workspace(workspace) as session:
        return {row.id for row in await session.exec(select(ApiTokenRow))}


async def test_a_token_that_was_revoked_since_is_revoked_again(restorable: Restorable) -> None:
    kept, _ = await prepare(restorable)
    workspace = kept.place.workspace_id
    stolen, other = await revoke_one_of_two(restorable, workspace)
    await put_back_older(restorable)
    assert await tokens_of(restorable.world, workspace) == {other}
    events = await restorable.world.events(workspace, "api_token.delete_again")
    assert [event.resource_id for event in events] == [stolen]


async def test_a_ledger_that_lost_lines_gets_them_from_the_database(
    restorable: Restorable,
) -> None:
    kept, purged = await prepare(restorable)
    await end(restorable, kept, purged)
    world = restorable.world
    world.ledger_file.unlink()
    assert await world.guard.check() is None
    assert purged.place.secret_id in world.ledger.entries()


async def test_a_guard_that_dies_at_any_moment_is_no_restore(restorable: Restorable) -> None:
    world = restorable.world
    for moment in range(40):
        world.faults.arm(moment)
        try:
            await world.guard.check()
        except Crash:
            pass
        else:
            break
        finally:
            world.faults.arm(None)
        assert await restorable.is_served()
        assert await world.guard.check() is None
    assert moment > 5


async def test_a_replay_that_dies_at_any_moment_serves_nothing_until_it_is_done(
    restorable: Restorable,
) -> None:
    kept, purged = await prepare(restorable)
    await restorable.save_database()
    await end(restorable, kept, purged)
    await restorable.put_database_back()
    world = restorable.world
    died = 0
    for moment in range(200):
        world.faults.arm(moment)
        try:
            await world.guard.check()
        except Crash:
            died += 1
            world.faults.arm(None)
            row = await world.row(purged)
            assert row is None or not await restorable.is_served()
        else:
            break
        finally:
            world.faults.arm(None)
    assert died > 20
    assert await restorable.is_served()
    assert await world.violations(kept) == []


async def test_reads_pass_while_the_generation_moves(restorable: Restorable) -> None:
    world = restorable.world
    await prepare(restorable)
    gate = ServingGate(world.openbao.marker, None)
    is_done = False

    async def move() -> None:
        nonlocal is_done
        for _ in range(MOVES):
            assert await world.guard.check() is None
        is_done = True

    passed = 0

    async def read() -> None:
        nonlocal passed
        while not is_done:
            async with world.api.transaction() as session:
                await gate.require_serving(session)
            passed += 1

    await asyncio.gather(move(), read(), read(), read())
    assert passed > MOVES


async def test_no_activity_reads_a_value_while_a_restore_is_not_dealt_with(
    restorable: Restorable,
) -> None:
    kept, _ = await prepare(restorable)
    world = restorable.world
    reader = SecretReader(
        world.database, world.values, ServingGate(world.openbao.marker, world.restored_at_file)
    )
    caller = system_caller(kept.place.workspace_id, "test")
    assert await reader.read(caller, kept.place.secret_id, operation_id="op_x")
    RestoreMarker(snapshot_sha256="0" * 64).write(world.restored_at_file)
    with pytest.raises(BulkheadError) as refused:
        await reader.read(caller, kept.place.secret_id, operation_id="op_x")
    assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert await world.guard.check() is not None
    assert await reader.read(caller, kept.place.secret_id, operation_id="op_x")


async def test_a_damaged_ledger_stops_everything_until_it_is_mended(
    restorable: Restorable,
) -> None:
    kept, purged = await prepare(restorable)
    await end(restorable, kept, purged)
    world = restorable.world
    whole = world.ledger_file.read_text()
    world.ledger_file.write_text("{}\n" + whole)
    with pytest.raises(BulkheadError):
        await world.guard.check()
    assert not await restorable.is_served()
    world.ledger_file.write_text(whole)
    assert await world.guard.check() is not None
    assert await restorable.is_served()
