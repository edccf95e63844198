"""What a rotation does when something happens beside it."""

import asyncio
import contextlib
import json
from functools import partial
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError

from domain.errors import BulkheadError, Reason
from domain.names import CONTROL_TASK_QUEUE
from domain.operation import (
    UNDO_PREFIX,
    WAITING_FOR_NEW_VALUE,
    OperationState,
    OperationType,
    Step,
)
from domain.owned_operation import TypedOperation
from domain.secret import CURRENT, Retirement, RotatorKind, VersionState
from infra.rotators.registry import check_settings
from infra.temporal.start import wake_rotation
from tests.durability import Moment
from tests.workflows.conftest import Injected
from tests.workflows.secret.handing_in import RotatingHetznerToken
from tests.workflows.secret.scenarios import Rotating, RotatingLogin, RotatingToken
from tests.workflows.secret.steering import (
    add_version,
    at,
    end,
    execute,
    is_unlocked,
    is_waiting,
    soft_delete,
    until,
    workflow_of,
)


async def test_a_version_that_is_added_meanwhile_does_not_disturb(
    injected: Injected, rotating: Rotating
) -> None:
    await rotating.plan(await rotating.make())

    async def add() -> None:
        assert await add_version(rotating) == 3

    async with at(injected, rotating, Step.SET_VALUE, Moment.BEFORE, add):
        await rotating.start()
        assert await end(rotating) is OperationState.SUCCEEDED
    assert (await rotating.secret()).aliases == {CURRENT: 2, "previous": 1}
    assert [version.state for version in await rotating.versions()] == [VersionState.ENABLED] * 3


async def test_a_rotation_gives_way_to_whoever_moved_current_meanwhile(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())

    async def move() -> None:
        number = await add_version(token)
        execute(
            token,
            "UPDATE secrets SET aliases = jsonb_build_object('current', %s) WHERE id = %s",
            number,
            token.operation.secret_id,
        )

    async with at(injected, token, Step.TEST_VALUE, Moment.AFTER, move):
        await token.start()
        assert await end(token) is OperationState.FAILED
    operation = await token.platform.operation(token.operation)
    assert operation.error is not None
    assert operation.error["reason"] == Reason.ABORTED
    assert (await token.secret()).aliases == {CURRENT: 3}
    assert [version.state for version in await token.versions()] == [
        VersionState.ENABLED,
        VersionState.ABANDONED,
        VersionState.ENABLED,
    ]
    assert token.first is not None
    assert await token.accepts(token.first)
    assert len(await token.accepted()) == 1


async def test_a_rotation_of_a_secret_that_is_deleted_meanwhile_is_undone(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())
    async with at(injected, token, Step.SET_VALUE, Moment.AFTER, partial(soft_delete, token)):
        await token.start()
        assert await end(token) is OperationState.FAILED
    await token.verify_undone()


async def test_a_rotation_that_was_not_finished_within_a_day_is_undone(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())

    async def let_a_day_pass() -> None:
        execute(
            token,
            "UPDATE operations SET started_at = started_at - interval '25 h' WHERE id = %s",
            token.operation.operation_id,
        )

    async with at(injected, token, Step.TEST_VALUE, Moment.AFTER, let_a_day_pass):
        await token.start()
        assert await end(token) is OperationState.FAILED
    operation = await token.platform.operation(token.operation)
    assert operation.error is not None
    assert operation.error["reason"] == Reason.DEADLINE_EXCEEDED
    await token.verify_undone()


async def test_a_rotation_beyond_the_quota_of_tokens_is_undone_and_says_what_to_do(
    injected: Injected, token: RotatingToken
) -> None:
    token.retirement = Retirement.KEEP
    await token.plan(await token.make())
    execute(
        token,
        "INSERT INTO quotas (workspace_id, metric, \"limit\") VALUES (%s, 'access/api_tokens', 1)",
        token.operation.workspace_id,
    )
    await token.start()
    assert await end(token) is OperationState.FAILED
    operation = await injected.platform.operation(token.operation)
    assert operation.error is not None
    assert operation.error["reason"] == Reason.QUOTA_EXCEEDED
    assert "--retire destroy" in operation.error["message"]
    await token.verify_undone()


async def test_a_target_that_rejects_the_current_value_fails_the_rotation(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())

    async def revoke() -> None:
        execute(
            token, "DELETE FROM api_tokens WHERE workspace_id = %s", token.operation.workspace_id
        )

    async with at(injected, token, Step.SET_VALUE, Moment.BEFORE, revoke):
        await token.start()
        assert await end(token) is OperationState.FAILED
    operation = await token.platform.operation(token.operation)
    assert operation.error is not None
    assert operation.error["reason"] == Reason.CREDENTIAL_REJECTED
    assert await token.accepted() == []


async def test_a_cancel_after_the_finish_is_refused_and_the_rotation_goes_on(
    injected: Injected, token: RotatingToken
) -> None:
    await token.plan(await token.make())
    answers: list[bool] = []

    async def cancel() -> None:
        answers.append(await token.platform.cancel(token.operation))
        # Whoever reaches Temporal is not heeded either.
        await workflow_of(token).cancel()

    async with at(injected, token, Step.FINISH_ROTATION, Moment.AFTER, cancel):
        await token.start()
        assert await end(token) is OperationState.SUCCEEDED
    assert answers == [False]
    await token.verify_done()


async def test_a_rotation_waits_for_consumers_and_is_woken_by_them(rotating: Rotating) -> None:
    rotating.grace_seconds = 3600
    await rotating.plan(await rotating.make())
    await rotating.add_consumer(acknowledges=True)
    await rotating.start()
    await until(lambda: is_waiting(rotating))
    operation = await rotating.platform.operation(rotating.operation)
    assert operation.waiting_for == "install one to acknowledge version 2"
    assert (await rotating.secret()).aliases[CURRENT] == 2
    execute(
        rotating,
        "UPDATE secret_references SET acknowledged_number = 2 WHERE secret_id = %s",
        rotating.operation.secret_id,
    )
    await wake_rotation(
        rotating.platform.client, rotating.operation.secret_id, rotating.operation.operation_id
    )
    assert await end(rotating) is OperationState.SUCCEEDED
    operation = await rotating.platform.operation(rotating.operation)
    assert operation.response is not None
    assert operation.response["unacknowledged_by"] == []
    assert operation.waiting_for is None


async def test_what_a_provider_said_of_the_old_value_is_not_said_of_the_new_one(
    rotating: Rotating,
) -> None:
    await rotating.plan(await rotating.make())
    execute(
        rotating,
        """UPDATE secrets SET validation = '{"state": "invalid"}' WHERE id = %s""",
        rotating.operation.secret_id,
    )
    await rotating.start()
    assert await end(rotating) is OperationState.SUCCEEDED
    assert (await rotating.secret()).validation is None


async def test_consumers_are_not_waited_for_longer_than_the_grace(rotating: Rotating) -> None:
    rotating.grace_seconds = 2
    await rotating.plan(await rotating.make())
    await rotating.add_consumer(acknowledges=True)
    await rotating.start()
    assert await end(rotating) is OperationState.SUCCEEDED
    operation = await rotating.platform.operation(rotating.operation)
    assert operation.response is not None
    assert operation.response["unacknowledged_by"] == ["install one"]


async def test_a_target_that_is_never_reached_has_nothing_to_take_back(
    rotating: Rotating,
) -> None:
    secret_id = await rotating.make()
    execute(
        rotating,
        "UPDATE secret_rotations SET rotator = 'https', settings = %s WHERE secret_id = %s",
        json.dumps(check_settings(RotatorKind.HTTPS, secret_id, {"url": "https://10.0.0.1/"})),
        secret_id,
    )
    await rotating.plan(secret_id)
    await rotating.start()
    assert await end(rotating) is OperationState.FAILED
    operation = await rotating.platform.operation(rotating.operation)
    assert operation.error is not None
    assert operation.error["reason"] == Reason.FAILED_PRECONDITION
    await rotating.verify_undone()


async def test_a_target_that_refuses_to_take_a_value_back_is_given_up_after_a_while(
    injected: Injected,
) -> None:
    login = RotatingLogin(injected.platform)
    try:
        await login.plan(await login.make())

        async def fail_without_an_administrator() -> None:
            execute(
                login,
                "UPDATE secret_versions SET state = 'disabled' WHERE secret_id ="
                " (SELECT settings ->> 'admin_secret_id' FROM secret_rotations"
                " WHERE secret_id = %s)",
                login.operation.secret_id,
            )
            raise BulkheadError(Reason.CONFLICT, "planted")

        async def is_refused() -> bool:
            operation = await login.platform.operation(login.operation)
            last = operation.last_error or {}
            return last.get("step_name") == UNDO_PREFIX + Step.CREATE_VALUE

        # A rotation that had been slow before has all the time for its undo.
        execute(
            login,
            "UPDATE operations SET started_at = started_at - interval '1 hour' WHERE id = %s",
            login.operation.operation_id,
        )
        async with at(
            injected, login, Step.TEST_VALUE, Moment.BEFORE, fail_without_an_administrator
        ):
            await login.start()
            await until(is_refused)
        operation = await login.platform.operation(login.operation)
        assert operation.state is OperationState.RUNNING
        execute(
            login,
            "UPDATE operation_steps SET started_at = started_at - interval '16 minutes'"
            " WHERE operation_id = %s AND name = %s",
            login.operation.operation_id,
            UNDO_PREFIX + Step.CREATE_VALUE,
        )
        assert await end(login) is OperationState.FAILED
        assert await is_unlocked(login)
        with login.platform.servers.administrator() as administrator:
            told = administrator.execute(
                "SELECT outcome FROM audit_events"
                " WHERE action = 'secret.rotate.undo' AND resource_id = %s",
                (login.operation.secret_id,),
            ).fetchall()
        assert told == [("failed",)]
    finally:
        login.close()


async def test_every_read_of_a_rotation_is_audited_with_its_operation(
    token: RotatingToken,
) -> None:
    await token.request()
    assert await end(token) is OperationState.SUCCEEDED
    with token.platform.servers.administrator() as administrator:
        lines = administrator.execute(
            "SELECT action FROM audit_events WHERE workspace_id = %s"
            " AND details ->> 'operation_id' = %s",
            (token.operation.workspace_id, token.operation.operation_id),
        ).fetchall()
    actions = [action for (action,) in lines]
    assert set(actions) == {
        "secret_version.access",
        "api_token.create",
        "secret.rotate.finish",
        "api_token.delete",
        "secret_version.disable",
        "secret_version.destroy",
        "secret.rotate",
    }
    # Create looks for an earlier attempt and takes the current one, set reads both, test the new
    # one, retire both. A step that was tried again has read again.
    steps = await token.platform.steps(token.operation)
    reads = actions.count("secret_version.access")
    assert reads == 7 or (reads > 7 and any(step.attempt > 1 for step in steps))


async def test_two_rotations_of_a_secret_never_run_at_once(rotating: Rotating) -> None:
    secret_id = await rotating.make()
    plans = await asyncio.gather(
        *(rotating.plan(secret_id) for _ in range(8)), return_exceptions=True
    )
    refused = [plan for plan in plans if isinstance(plan, BulkheadError)]
    assert [error.reason for error in refused] == [Reason.CONFLICT] * 7
    await rotating.start()
    assert await end(rotating) is OperationState.SUCCEEDED


@pytest.mark.parametrize("workflow_id", ["forged-{}", "secret/any/rotate/{}"])
async def test_a_forged_workflow_touches_no_secret(token: RotatingToken, workflow_id: str) -> None:
    await token.request()
    assert await end(token) is OperationState.SUCCEEDED
    ended = token.operation
    lost = TypedOperation(type=OperationType.SECRET_ROTATE, operation=ended)
    for workflow, argument in (("RotateSecret", ended), ("AbandonOperation", lost)):
        handle = await token.platform.client.start_workflow(
            workflow,
            argument,
            id=workflow_id.format(f"{uuid4().hex}/{ended.operation_id}"),
            task_queue=CONTROL_TASK_QUEUE,
        )
        with contextlib.suppress(WorkflowFailureError, TimeoutError):
            await asyncio.wait_for(handle.result(), 3)
        with contextlib.suppress(Exception):
            await handle.terminate("the test is over")
    await token.verify_done()


async def test_a_rotation_waits_for_a_persons_new_token_for_as_long_as_that_takes(
    injected: Injected,
) -> None:
    scenario = RotatingHetznerToken(injected)
    await scenario.plan(await scenario.make())
    await scenario.start()
    await until(lambda: is_waiting(scenario))
    operation = await scenario.platform.operation(scenario.operation)
    assert operation.waiting_for == WAITING_FOR_NEW_VALUE
    assert operation.last_error is not None
    assert scenario.hand_over in operation.last_error["message"]
    # Its deadline is over, which a person could not keep.
    execute(
        scenario,
        "UPDATE operations SET started_at = now() - interval '9 days' WHERE id = %s",
        operation.id,
    )
    await scenario.hand_in()
    assert await end(scenario) is OperationState.SUCCEEDED
    assert (await scenario.secret()).aliases == {CURRENT: 2, "previous": 1}
    scenario.close()


async def test_a_rotation_that_waits_for_a_person_can_be_cancelled(injected: Injected) -> None:
    scenario = RotatingHetznerToken(injected)
    await scenario.plan(await scenario.make())
    await scenario.start()
    await until(lambda: is_waiting(scenario))
    await scenario.cancel(scenario.operation.operation_id)
    assert await end(scenario) is OperationState.CANCELLED
    await scenario.verify_undone()
    assert (await scenario.platform.operation(scenario.operation)).waiting_for is None
    scenario.close()
