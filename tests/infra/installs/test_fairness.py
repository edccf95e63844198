"""Passes over installs, and what overtakes them."""

from datetime import UTC, datetime

import pytest

from domain.identifiers import Prefix, new_id
from domain.install import Health
from domain.install_health import Settled
from domain.kstatus import ObjectStatus
from infra.database.records import install_drift
from infra.database.tables import GrantRow
from infra.installs.observations import Look, Observations
from tests.infra.installs.objects import config_map
from tests.infra.installs.world import World


async def test_installs_whose_look_fails_each_time_keep_no_other_from_being_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_drift, "_LOOKS_A_PASS", 1)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    wanted = {"created_at": long_ago, "observed_at": datetime.now(UTC)}
    failing = await world.deploy(config_map(), **wanted)
    other = await world.deploy(config_map(), drift_looked_at=long_ago, **wanted)
    # Nothing is ever written of the first, which would come first by every order of the two.
    seen = {one.install_id for _ in range(50) for one in await world.drift.due()}
    assert seen == {failing, other}


async def test_a_vendor_is_told_no_version_of_a_look_that_an_operation_overtook(
    world: World,
) -> None:
    install = await world.deploy(config_map())
    grant = await world.grant(install)
    await world.watch(world.observer(), seconds=0)
    observations = Observations(world.database)
    known = (await observations.read(world.workspace, [install]))[install]
    row = known.row
    newer = new_id(Prefix.PACKAGE_VERSION)

    async def reach(**columns: str) -> None:
        """Have an operation end that brought a version."""
        await world.change(install, current_version_id=newer, **columns)
        async with world.database.workspace(world.workspace) as session:
            told = await session.get_one(GrantRow, (world.workspace, grant))
            told.current_version_id = newer
            session.add(told)

    # Something that the vendor does not know yet.
    settled = Settled(
        health=Health.DEGRADED,
        since=world.now,
        candidate=Health.DEGRADED,
        candidate_since=world.now,
    )
    found = ObjectStatus(Health.DEGRADED, "")
    look = Look(known, row.current_render_id or "", None, found, settled)
    # Its objects are the same; then it has others.
    for columns in ({}, {"current_render_id": new_id(Prefix.RENDER)}):
        await reach(**columns)
        await observations.write(look, world.now)
        assert (await world.granted(grant)).current_version_id == newer
