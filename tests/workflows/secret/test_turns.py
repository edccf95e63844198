"""What the clock does with rotations: forgotten, lost and due ones."""

import asyncio

import pytest

from domain.caller import system_caller
from domain.operation import OperationState, Step
from domain.owned_operation import SecretOperation
from domain.secret import CURRENT
from infra.database.records.operation import secret_operation_of
from infra.database.tables import OperationRow, SecretRotationRow
from tests.durability import CANCELS_WITHIN_SECONDS, Moment
from tests.workflows.conftest import Injected
from tests.workflows.secret.scenarios import Rotating, RotatingToken
from tests.workflows.secret.steering import (
    at,
    end,
    execute,
    is_unlocked,
    run,
    until,
    workflow_of,
)
from workflows.operation.reconcile import ReconcileOperations
from workflows.secret.rotate import RotateSecrets


async def test_a_rotation_that_was_never_started_is_started_once(rotating: Rotating) -> None:
    await rotating.plan(await rotating.make())
    _age(rotating)
    await run(rotating, ReconcileOperations.run)
    await run(rotating, ReconcileOperations.run)
    assert await end(rotating) is OperationState.SUCCEEDED
    await rotating.verify_done()


def _age(scenario: Rotating) -> None:
    execute(
        scenario,
        "UPDATE operations SET started_at = now() - interval '1 minute' WHERE id = %s",
        scenario.operation.operation_id,
    )


LOST = [
    *((step, OperationState.FAILED) for step in (Step.CREATE_VALUE, Step.TEST_VALUE)),
    *((step, OperationState.SUCCEEDED) for step in (Step.FINISH_ROTATION, Step.RETIRE_VERSION)),
]


@pytest.mark.parametrize(("step", "expected"), LOST)
async def test_a_rotation_whose_workflow_is_lost_is_undone_or_completed(
    injected: Injected, token: RotatingToken, step: Step, expected: OperationState
) -> None:
    await token.plan(await token.make())
    terminated = asyncio.Event()

    async def terminate() -> None:
        await workflow_of(token).terminate("planted")
        terminated.set()

    async with at(injected, token, step, Moment.AFTER, terminate):
        await token.start()
        await asyncio.wait_for(terminated.wait(), 60)
    _age(token)
    await run(token, ReconcileOperations.run)
    state = await token.end_of(token.operation.operation_id, CANCELS_WITHIN_SECONDS)
    assert state is expected
    if expected is OperationState.SUCCEEDED:
        await token.verify_done()
    else:
        await token.verify_undone()


async def test_a_due_rotation_is_planned_once_and_rotates(rotating: Rotating) -> None:
    operation = await rotating.plan(await rotating.make())
    await rotating.start()
    assert await end(rotating) is OperationState.SUCCEEDED
    execute(
        rotating,
        "UPDATE secret_rotations SET next_rotation_at = now() - interval '1 minute'"
        " WHERE secret_id = %s",
        operation.secret_id,
    )
    await run(rotating, RotateSecrets.run)
    await run(rotating, RotateSecrets.run)
    await until(lambda: is_unlocked(rotating))
    assert (await rotating.secret()).aliases == {CURRENT: 3, "previous": 2}
    with rotating.platform.servers.administrator() as administrator:
        planned = administrator.execute(
            "SELECT actor_id FROM audit_events WHERE action = 'secret.rotate' AND outcome ="
            " 'allowed' AND resource_id = %s",
            (operation.secret_id,),
        ).fetchall()
        row = administrator.execute(
            "SELECT next_rotation_at > now() + interval '23 h' FROM secret_rotations"
            " WHERE secret_id = %s",
            (operation.secret_id,),
        ).fetchone()
    schedule = system_caller(operation.workspace_id, "rotate-secrets").principal_id
    assert planned == [(schedule,)]
    assert row == (True,)


async def test_a_rotation_that_was_due_too_long_ago_waits_for_its_next_turn(
    rotating: Rotating,
) -> None:
    secret_id = await rotating.make()
    execute(
        rotating,
        "UPDATE secret_rotations SET next_rotation_at = now() - interval '2 h'"
        " WHERE secret_id = %s",
        secret_id,
    )
    await run(rotating, RotateSecrets.run)
    with rotating.platform.servers.administrator() as administrator:
        row = administrator.execute(
            "SELECT s.active_operation_id, s.last_version_number,"
            " r.next_rotation_at BETWEEN now() + interval '21 h' AND now() + interval '23 h'"
            " FROM secrets s JOIN secret_rotations r ON r.secret_id = s.id WHERE s.id = %s",
            (secret_id,),
        ).fetchone()
    assert row == (None, 1, True)


async def test_a_turn_without_any_catch_up_is_not_late_by_the_pace_of_the_schedule(
    rotating: Rotating,
) -> None:
    secret_id = await rotating.make()
    execute(
        rotating,
        "UPDATE secret_rotations SET catch_up_seconds = 0,"
        " next_rotation_at = now() - interval '70 s' WHERE secret_id = %s",
        secret_id,
    )
    await run(rotating, RotateSecrets.run)
    await _succeeds(rotating, secret_id)


async def test_a_turn_waits_while_as_many_rotations_are_under_way_as_may_be(
    rotating: Rotating,
) -> None:
    secret_id = await rotating.make()
    execute(
        rotating,
        "UPDATE secret_rotations SET next_rotation_at = now() - interval '1 minute'"
        " WHERE secret_id = %s",
        secret_id,
    )
    workspace_id = (await rotating.caller()).workspace_id
    execute(
        rotating,
        "INSERT INTO quotas (workspace_id, metric, \"limit\") VALUES (%s, 'secrets/rotations', 0)",
        workspace_id,
    )
    await run(rotating, RotateSecrets.run)
    with rotating.platform.servers.administrator() as administrator:
        row = administrator.execute(
            "SELECT last_operation_id, next_rotation_at < now() FROM secret_rotations"
            " WHERE secret_id = %s",
            (secret_id,),
        ).fetchone()
    assert row == (None, True)
    execute(rotating, "DELETE FROM quotas WHERE workspace_id = %s", workspace_id)
    await run(rotating, RotateSecrets.run)
    await _succeeds(rotating, secret_id)


@pytest.mark.parametrize(("catch_up_seconds", "is_tried_again"), [(7200, True), (3600, False)])
async def test_a_turn_that_failed_is_tried_again_after_a_pause_while_it_is_not_too_late(
    rotating: Rotating,
    catch_up_seconds: int,
    is_tried_again: bool,  # noqa: FBT001 - a column of the table
) -> None:
    secret_id = await rotating.make()
    execute(
        rotating,
        "UPDATE secret_rotations SET catch_up_seconds = %s,"
        " next_rotation_at = now() - interval '5 minutes' WHERE secret_id = %s",
        catch_up_seconds,
        secret_id,
    )
    switch = "UPDATE secret_versions SET state = %s WHERE secret_id = %s"
    execute(rotating, switch, "disabled", secret_id)
    await run(rotating, RotateSecrets.run)
    failed = await _last_rotation(rotating, secret_id)
    assert await _end_of(rotating, failed) is OperationState.FAILED
    execute(rotating, switch, "enabled", secret_id)
    await run(rotating, RotateSecrets.run)
    assert await _last_rotation(rotating, secret_id) == failed
    execute(
        rotating,
        "UPDATE operations SET completed_at = completed_at - interval '61 minutes',"
        # By so much later it is now.
        " placement = jsonb_set(placement, '{turn,last_chance_at}',"
        " to_jsonb((placement #>> '{turn,last_chance_at}')::float - 3660)) WHERE id = %s",
        failed.operation_id,
    )
    await run(rotating, RotateSecrets.run)
    assert (await _last_rotation(rotating, secret_id) != failed) is is_tried_again
    if is_tried_again:
        await _succeeds(rotating, secret_id)
        await run(rotating, RotateSecrets.run)
        assert (await rotating.secret()).last_version_number == 2


async def _last_rotation(rotating: Rotating, secret_id: str) -> SecretOperation:
    """Return the rotation that was planned last, by whomever."""
    caller = await rotating.caller()
    async with rotating.platform.api.workspace(caller.workspace_id) as session:
        row = await session.get_one(SecretRotationRow, (caller.workspace_id, secret_id))
        operation = await session.get_one(
            OperationRow, (caller.workspace_id, row.last_operation_id)
        )
    rotating.requested = secret_operation_of(operation)
    return rotating.requested


async def _end_of(rotating: Rotating, operation: SecretOperation) -> OperationState:
    return await rotating.end_of(operation.operation_id, CANCELS_WITHIN_SECONDS)


async def _succeeds(rotating: Rotating, secret_id: str) -> None:
    operation = await _last_rotation(rotating, secret_id)
    assert await _end_of(rotating, operation) is OperationState.SUCCEEDED
    assert (await rotating.secret()).aliases == {CURRENT: 2, "previous": 1}
