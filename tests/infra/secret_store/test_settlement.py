"""What was left half-done comes to rest, and a writer who comes late is refused."""

import asyncio

import pytest

from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretPlace, SecretState, VersionState
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import begin_version, place_of
from infra.database.tables import SecretVersionRow
from infra.openbao.values import Presence
from infra.secret_store.settlement import Settlement
from tests.infra.secret_store.faults import Crash
from tests.infra.secret_store.world import Secret, World, fresh_value


async def begun(world: World, secret: Secret, state: VersionState) -> SecretVersionRow:
    """Write the intent of one more version."""
    async with world.database.workspace(secret.place.workspace_id) as session:
        version = await begin_version(
            session,
            NewRows(),
            secret.place.workspace_id,
            secret.place.secret_id,
            state=state,
            operation_id=new_id(Prefix.OPERATION),
        )
    secret.values[version.id] = fresh_value()
    return version


async def test_a_version_whose_value_was_stored_is_shown(world: World, caller: Caller) -> None:
    secret = await world.new_secret(caller)
    version = await begun(world, secret, VersionState.WRITING)
    await asyncio.to_thread(world.values.write, place_of(version), secret.values[version.id])
    assert await world.settlement.settle(place_of(version)) is VersionState.ENABLED
    assert await world.settlement.settle(place_of(version)) is None
    assert await world.violations(secret) == []
    assert len(await world.events(caller.workspace_id, "secret_version.settle")) == 1


async def test_a_version_without_a_value_is_given_up_and_its_writer_refused(
    world: World, caller: Caller
) -> None:
    secret = await world.new_secret(caller)
    version = await begun(world, secret, VersionState.WRITING)
    assert await world.settlement.settle(place_of(version)) is VersionState.ABANDONED
    with pytest.raises(BulkheadError) as refused:
        await world.store(place_of(version), secret.values[version.id])
    assert refused.value.reason is Reason.CONFLICT
    assert await world.violations(secret) == []


async def test_a_secret_whose_first_value_never_came_leaves_its_name_free(
    world: World, caller: Caller
) -> None:
    secret = Secret(SecretPlace(workspace_id=caller.workspace_id, secret_id=""))
    world.faults.arm(3)
    with pytest.raises(Crash):
        await world.create(caller, secret)
    world.faults.arm(None)
    row = await world.row(secret)
    assert row is not None
    assert row.state is SecretState.CREATING
    await world.settlement.sweep()
    assert await world.row(secret) is None
    assert await world.violations(secret) == []


async def test_a_pending_version_of_an_ended_rotation_is_destroyed(
    world: World, caller: Caller
) -> None:
    secret = await world.new_secret(caller)
    version = await begun(world, secret, VersionState.PENDING)
    await asyncio.to_thread(world.values.write, place_of(version), secret.values[version.id])
    assert await world.settlement.settle(place_of(version)) is VersionState.ABANDONED
    assert await world.look(secret, version.id) is Presence.GONE
    assert await world.violations(secret) == []


async def test_a_young_version_is_left_to_its_writer(world: World, caller: Caller) -> None:
    secret = await world.new_secret(caller)
    version = await begun(world, secret, VersionState.WRITING)
    patient = Settlement(world.database, world.sweeper, world.openbao)
    assert await patient.settle(place_of(version)) is None
    # Versions of other tests may be old enough by now.
    await patient.sweep()
    assert (await world.versions(secret))[-1].state is VersionState.WRITING
    world.overwrite_states(
        "UPDATE secret_versions SET updated_at = now() - interval '3 minutes' WHERE id = %s",
        version.id,
    )
    await patient.sweep()
    assert len(await world.events(caller.workspace_id, "secret_version.settle")) == 1
    assert (await world.versions(secret))[-1].state is VersionState.ABANDONED
