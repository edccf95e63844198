"""What becomes of the value that a rotation replaced, and why it is kept."""

import asyncio
from functools import partial

import pytest

from domain.operation import OperationState, Step
from domain.secret import CURRENT, Retirement, VersionState
from infra.database.records.secret import place_of
from tests.durability import Moment
from tests.workflows.conftest import Injected
from tests.workflows.secret.scenarios import RotatingToken
from tests.workflows.secret.steering import add_version, at, end, execute, soft_delete


@pytest.mark.parametrize("retirement", [Retirement.DISABLE, Retirement.DESTROY])
async def test_a_version_that_somebody_is_pinned_to_is_kept(
    token: RotatingToken, retirement: Retirement
) -> None:
    token.retirement = retirement
    await token.plan(await token.make())
    await token.add_consumer(pinned_to=1)
    await token.start()
    assert await end(token) is OperationState.SUCCEEDED
    operation = await token.platform.operation(token.operation)
    assert operation.response is not None
    assert operation.response["retirement"] == Retirement.KEEP
    assert operation.response["kept_because"] == "Version 1 is used by install one."
    assert {version.state for version in await token.versions()} == {VersionState.ENABLED}
    assert len(await token.accepted()) == 2


@pytest.mark.parametrize("retirement", [Retirement.DISABLE, Retirement.DESTROY])
@pytest.mark.parametrize("alias", [CURRENT, "blue"])
async def test_a_version_that_an_alias_points_at_again_is_kept(
    injected: Injected, token: RotatingToken, retirement: Retirement, alias: str
) -> None:
    token.retirement = retirement
    await token.plan(await token.make())

    async def point_back() -> None:
        execute(
            token,
            "UPDATE secrets SET aliases = aliases || jsonb_build_object(%s::text, 1) WHERE id = %s",
            alias,
            token.operation.secret_id,
        )

    async with at(injected, token, Step.DRAIN_CONSUMERS, Moment.BEFORE, point_back):
        await token.start()
        assert await end(token) is OperationState.SUCCEEDED
    operation = await token.platform.operation(token.operation)
    assert operation.response is not None
    assert operation.response["kept_because"] == f"Version 1 is used by the alias `{alias}`."
    assert {version.state for version in await token.versions()} == {VersionState.ENABLED}
    assert len(await token.accepted()) == 2


async def test_a_value_that_became_current_again_under_another_number_is_kept(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())

    async def add_it_again() -> None:
        assert token.first is not None
        execute(
            token,
            "UPDATE secrets SET aliases = aliases || jsonb_build_object('current', %s::int)"
            " WHERE id = %s",
            await add_version(token, token.first),
            token.operation.secret_id,
        )

    async with at(injected, token, Step.DRAIN_CONSUMERS, Moment.BEFORE, add_it_again):
        await token.start()
        assert await end(token) is OperationState.SUCCEEDED
    operation = await token.platform.operation(token.operation)
    assert operation.response is not None
    assert operation.response["kept_because"] == "Its value is `current` again, as another version."
    assert {version.state for version in await token.versions()} == {VersionState.ENABLED}
    assert token.first is not None
    assert await token.accepts(token.first)


async def test_a_secret_that_is_deleted_while_it_drains_has_its_old_value_refused(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())
    async with at(
        injected, token, Step.DRAIN_CONSUMERS, Moment.BEFORE, partial(soft_delete, token)
    ):
        await token.start()
        assert await end(token) is OperationState.SUCCEEDED
    await token.verify_done()


async def test_a_value_that_is_gone_before_its_target_was_told_is_said_to_be_accepted_still(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())

    async def lose_it() -> None:
        old = (await token.versions())[0]
        await asyncio.to_thread(token.values.destroy, place_of(old))
        execute(token, "UPDATE secret_versions SET state = 'destroyed' WHERE id = %s", old.id)

    async with at(injected, token, Step.RETIRE_VERSION, Moment.BEFORE, lose_it):
        await token.start()
        assert await end(token) is OperationState.SUCCEEDED
    operation = await token.platform.operation(token.operation)
    assert operation.response is not None
    assert operation.response["retirement"] == Retirement.KEEP
    assert "could not be told to refuse version 1" in operation.response["kept_because"]
    assert len(await token.accepted()) == 2
    with token.platform.servers.administrator() as administrator:
        (told,) = administrator.execute(
            "SELECT outcome, details ->> 'version_id' FROM audit_events"
            " WHERE action = 'secret.rotate.undo' AND resource_id = %s",
            (token.operation.secret_id,),
        ).fetchall()
    assert told == ("failed", (await token.versions())[0].id)
