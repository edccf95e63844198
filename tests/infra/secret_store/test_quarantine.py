"""Values that no version knows are kept for a month, and no longer."""

import asyncio
import time
from uuid import UUID

from domain.caller import Caller
from domain.identifiers import Prefix, new_id
from domain.secret import VersionPlace
from infra.openbao.values import Presence
from tests.infra.secret_store.world import World, fresh_value


def old_place(caller: Caller) -> VersionPlace:
    """Return a place whose ids were made two days ago."""
    milliseconds = int((time.time() - 2 * 86400) * 1000)

    def aged(prefix: Prefix) -> str:
        fresh = UUID(hex=new_id(prefix).rsplit("_", 1)[1]).int & ((1 << 80) - 1)
        return f"{prefix}_{milliseconds << 80 | fresh:032x}"

    return VersionPlace(
        workspace_id=caller.workspace_id,
        secret_id=aged(Prefix.SECRET),
        version_id=aged(Prefix.SECRET_VERSION),
    )


def orphans(world: World, place: VersionPlace) -> list[tuple[bool]]:
    return world.administrator.execute(
        "SELECT removed_at IS NOT NULL FROM secret_orphans WHERE version_id = %s",
        (place.version_id,),
    ).fetchall()


def find_long_ago(world: World, place: VersionPlace) -> None:
    world.overwrite_states(
        "UPDATE secret_orphans SET found_at = now() - interval '31 days' WHERE version_id = %s",
        place.version_id,
    )


async def test_an_orphan_is_kept_for_a_month_then_removed_and_audited(
    world: World, caller: Caller
) -> None:
    place = old_place(caller)
    world.values.write(place, fresh_value())
    assert (await world.quarantine.look_through(caller.workspace_id)).found == 1
    assert (await world.quarantine.look_through(caller.workspace_id)).found == 0
    assert world.values.look(place) is Presence.VALUE
    find_long_ago(world, place)
    assert (await world.quarantine.look_through(caller.workspace_id)).removed == 1
    assert world.values.look(place) is Presence.ABSENT
    assert orphans(world, place) == [(True,)]
    assert len(await world.events(caller.workspace_id, "secret_orphan.remove")) == 1


async def test_a_young_value_and_a_known_one_are_no_orphans(world: World, caller: Caller) -> None:
    await world.new_secret(caller)
    young = VersionPlace(
        workspace_id=caller.workspace_id,
        secret_id=new_id(Prefix.SECRET),
        version_id=new_id(Prefix.SECRET_VERSION),
    )
    world.values.write(young, fresh_value())
    assert (await world.quarantine.look_through(caller.workspace_id)).found == 0


async def test_an_orphan_that_a_version_knows_again_is_forgotten(
    world: World, caller: Caller
) -> None:
    secret = await world.new_secret(caller)
    known = secret.version(next(iter(secret.values)))
    world.overwrite_states(
        "INSERT INTO secret_orphans VALUES (%s, %s, %s, now() - interval '31 days')",
        known.workspace_id,
        known.secret_id,
        known.version_id,
    )
    assert (await world.quarantine.look_through(caller.workspace_id)).forgotten == 1
    assert world.values.look(known) is Presence.VALUE


async def test_nothing_is_removed_while_a_restore_is_not_dealt_with(
    world: World, caller: Caller
) -> None:
    place = old_place(caller)
    world.values.write(place, fresh_value())
    await world.quarantine.look_through(caller.workspace_id)
    find_long_ago(world, place)
    world.overwrite_states("UPDATE secret_store_state SET serving = false")
    try:
        assert (await world.quarantine.look_through(caller.workspace_id)).removed == 0
        assert world.values.look(place) is Presence.VALUE
    finally:
        world.overwrite_states("UPDATE secret_store_state SET serving = true")


async def test_what_comes_to_a_purged_secret_or_was_sealed_is_removed_at_once(
    world: World, caller: Caller
) -> None:
    late, sealed = old_place(caller), old_place(caller)
    world.overwrite_states(
        "INSERT INTO secret_tombstones VALUES (%s, %s, 'generic', '{}', '{}', 'system', 'test')",
        late.workspace_id,
        late.secret_id,
    )
    await asyncio.to_thread(world.values.write, late, fresh_value())
    await asyncio.to_thread(world.values.seal, sealed)
    assert (await world.quarantine.look_through(caller.workspace_id)).removed == 2
    assert world.values.names(caller.workspace_id) == []
