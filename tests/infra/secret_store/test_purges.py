"""A purge removes everything and proves it; a restore that comes first leaves nothing to do."""

import asyncio
from datetime import timedelta

import pytest

from domain.caller import Caller
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from domain.secret import SecretKind, SecretPlace, SecretState, VersionState
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import (
    begin_purging,
    begin_secret,
    begin_version,
    restore,
)
from infra.openbao.values import Presence
from infra.secret_store.purges import SecretPurges
from infra.secret_store.reader import Consumer, SecretReader
from infra.secret_store.serving import ServingGate
from tests.infra.secret_store.world import Secret, World

RACES = 25


def fall_due(world: World, secret: Secret) -> None:
    world.overwrite_states(
        "UPDATE secrets SET purge_at = now() - interval '1 second' WHERE id = %s",
        secret.place.secret_id,
    )


async def test_a_purged_secret_leaves_a_tombstone_with_evidence_and_nothing_else(
    world: World, caller: Caller
) -> None:
    secret = await world.new_secret(caller, versions=3)
    await world.destroy(secret, list(secret.values)[1])
    await world.purge(secret)
    assert await world.row(secret) is None
    assert await world.versions(secret) == []
    for version_id in secret.values:
        assert await world.look(secret, version_id) is Presence.ABSENT
    ((version_ids, evidence),) = world.administrator.execute(
        "SELECT version_ids, evidence FROM secret_tombstones WHERE secret_id = %s",
        (secret.place.secret_id,),
    ).fetchall()
    assert version_ids == list(secret.values)
    assert {proof["read_back"] for proof in evidence["versions"].values()} == {404}
    assert len(await world.events(caller.workspace_id, "secret.purge")) == 1
    await world.purges.purge_values(secret.place)
    await world.purges.record(secret.place)
    assert len(await world.events(caller.workspace_id, "secret.purge")) == 1


async def test_where_nothing_could_be_read_back_the_evidence_says_so(world: World) -> None:
    caller = await world.new_workspace(with_a_place=False)
    async with world.database.workspace(caller.workspace_id) as session:
        version = await begin_secret(
            session, NewRows(), caller, name="never stored", kind=SecretKind.GENERIC
        )
    place = SecretPlace(workspace_id=caller.workspace_id, secret_id=version.secret_id)
    world.overwrite_states("UPDATE secrets SET state = 'purging' WHERE id = %s", place.secret_id)
    await world.purges.purge_values(place)
    await world.purges.record(place)
    ((evidence,),) = world.administrator.execute(
        "SELECT evidence FROM secret_tombstones WHERE secret_id = %s", (place.secret_id,)
    ).fetchall()
    (proof,) = evidence["versions"].values()
    assert "namespace_missing_at" in proof
    assert "read_back" not in proof


async def test_a_secret_that_is_not_being_purged_is_not_touched_whoever_asks(
    world: World, caller: Caller
) -> None:
    secret = await world.new_secret(caller)
    for attempt in (world.purges.purge_values, world.purges.record):
        with pytest.raises(BulkheadError) as refused:
            await attempt(secret.place)
        assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert await world.violations(secret) == []


async def test_what_has_expired_is_deleted_and_what_is_due_is_purged(
    world: World, caller: Caller
) -> None:
    expired, due, kept = [await world.new_secret(caller) for _ in range(3)]
    world.overwrite_states(
        "UPDATE secrets SET expires_at = now() - interval '1 second' WHERE id = %s",
        expired.place.secret_id,
    )
    await world.soft_delete(due)
    fall_due(world, due)
    purging = await world.purges.begin_due()
    states = []
    for secret in (expired, due, kept):
        row = await world.row(secret)
        assert row is not None
        states.append(row.state)
    assert states == [SecretState.SOFT_DELETED, SecretState.PURGING, SecretState.ACTIVE]
    assert due.place in purging
    await world.purges.purge_values(due.place)
    await world.purges.record(due.place)
    assert due.place not in await world.purges.begin_due()


async def _expired_credential(world: World, caller: Caller) -> Secret:
    """Return a secret whose time is over, and with whose value there is a stack."""
    secret = await world.new_secret(caller)
    workspace, secret_id = caller.workspace_id, secret.place.secret_id
    world.administrator.execute(
        "INSERT INTO compute_configs (workspace_id, id, name, provider, provider_config, secret_id,"
        " version) VALUES (%s, 'cmp', 'c', 'hcloud', '{}', %s, 1)",
        (workspace, secret_id),
    )
    world.administrator.execute(
        "INSERT INTO stacks (workspace_id, id, kind, cluster_id, compute_config_id, secret_id,"
        " provider, place, region, state, shape, outputs, fence) VALUES (%s, %s, 'machine', 'clu',"
        " 'cmp', %s, 'hcloud', 'fsn1', 'eu-central', 'changing', '{}', '{}', 0)",
        (workspace, f"stk_{secret_id}", secret_id),
    )
    world.overwrite_states(
        "UPDATE secrets SET expires_at = now() - interval '1 second' WHERE id = %s", secret_id
    )
    return secret


def _remove_stacks(world: World, caller: Caller) -> None:
    world.administrator.execute(
        "UPDATE stacks SET state = 'removed' WHERE workspace_id = %s", (caller.workspace_id,)
    )


async def test_the_credential_of_what_exists_is_read_after_its_end_for_nothing_else(
    world: World, caller: Caller
) -> None:
    secret = await _expired_credential(world, caller)
    secret_id = secret.place.secret_id
    gate = ServingGate(world.openbao.marker, world.restored_at_file)
    reader = SecretReader(world.database, world.values, gate)
    config = Consumer(type=COMPUTE_CONFIG_CONSUMER, id="cmp")
    read = await reader.read(caller, secret_id, operation_id="op_x", consumer=config)
    assert read.value == secret.values[read.version_id]
    with pytest.raises(BulkheadError, match="has expired"):
        await reader.read(caller, secret_id, operation_id="op_x")
    _remove_stacks(world, caller)
    with pytest.raises(BulkheadError, match="has expired"):
        await reader.read(caller, secret_id, operation_id="op_x", consumer=config)


async def test_a_credential_outlives_its_end_while_something_is_managed_with_it(
    world: World, caller: Caller
) -> None:
    secret = await _expired_credential(world, caller)
    for removed in (False, True):
        if removed:
            _remove_stacks(world, caller)
        await world.purges.begin_due()
        row = await world.row(secret)
        assert row is not None
        assert (row.state is SecretState.SOFT_DELETED) is removed


async def test_a_purge_that_is_a_day_late_is_counted(world: World, caller: Caller) -> None:
    secret = await world.new_secret(caller)
    await world.soft_delete(secret)
    # Other tests' may be late as well.
    others = await world.purges.overdue()
    world.overwrite_states(
        "UPDATE secrets SET purge_at = now() - interval '25 hours' WHERE id = %s",
        secret.place.secret_id,
    )
    assert await world.purges.overdue() == others + 1
    await world.purge(secret)
    assert await world.purges.overdue() == others


async def test_a_restore_and_a_purge_that_race_leave_one_winner(
    world: World, caller: Caller
) -> None:
    async def take_back(secret: Secret) -> bool:
        async with world.api.workspace(secret.place.workspace_id) as session:
            return await restore(session, secret.place.secret_id)

    async def purge_now(secret: Secret) -> bool:
        async with world.api.workspace(secret.place.workspace_id) as session:
            row = await world.hold(session, secret)
            if row.state is not SecretState.SOFT_DELETED:
                return False
            return await begin_purging(session, secret.place.secret_id)

    winners = set()
    for race in range(RACES):
        secret = await world.new_secret(caller)
        await world.soft_delete(secret)
        order = [take_back(secret), purge_now(secret)]
        results = await asyncio.gather(*(order if race % 2 else reversed(order)))
        restored, purged = results if race % 2 else reversed(results)
        assert restored is not purged
        winners.add(restored)
        if purged:
            await world.purges.purge_values(secret.place)
            await world.purges.record(secret.place)
            assert await world.row(secret) is None
        else:
            assert secret.place not in await world.purges.begin_due()
        assert await world.violations(secret) == []
    assert winners == {True, False}


async def test_a_purge_waits_for_who_may_still_be_writing(world: World, caller: Caller) -> None:
    secret = await world.new_secret(caller)
    async with world.database.workspace(caller.workspace_id) as session:
        await begin_version(session, NewRows(), caller.workspace_id, secret.place.secret_id)
        await begin_purging(session, secret.place.secret_id)
    patient = SecretPurges(
        world.database,
        world.sweeper,
        world.values,
        world.ledger,
        settled_after=timedelta(minutes=2),
    )
    for attempt in (patient.purge_values, patient.record):
        with pytest.raises(BulkheadError) as waits:
            await attempt(secret.place)
        assert waits.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    versions = await world.versions(secret)
    assert versions[-1].state is VersionState.WRITING
    await world.purges.purge_values(secret.place)
    await world.purges.record(secret.place)
    assert await world.row(secret) is None
