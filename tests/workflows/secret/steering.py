"""What tests do beside a rotation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import psycopg
from temporalio.client import WorkflowHandle

from domain.names import CONTROL_TASK_QUEUE, workflow_id_of
from domain.operation import OperationState, OperationType, Step
from domain.secret import SecretValue
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import begin_version, complete_version, place_of
from tests.durability import ENDS_WITHIN_SECONDS, Fault, Moment
from tests.workflows.conftest import Injected
from tests.workflows.secret.scenarios import Rotating

_BY_HAND = SecretValue(b"by hand")


def execute(scenario: Rotating, statement: str, *values: object) -> None:
    """Change rows behind everybody's back."""
    with scenario.platform.servers.administrator() as administrator:
        administrator.execute(psycopg.sql.SQL(statement), values)


async def soft_delete(scenario: Rotating) -> None:
    """Delete a secret beside its rotation."""
    execute(
        scenario,
        "UPDATE secrets SET state = 'soft_deleted' WHERE id = %s",
        scenario.operation.secret_id,
    )


async def run(scenario: Rotating, scheduled: Callable[..., Awaitable[object]]) -> None:
    """Run one pass of a schedule."""
    handle = await scenario.platform.client.start_workflow(
        scheduled.__qualname__.split(".")[0],
        id=f"pass-{uuid4().hex}",
        task_queue=CONTROL_TASK_QUEUE,
    )
    await asyncio.wait_for(handle.result(), 60)


@contextlib.asynccontextmanager
async def at(
    injected: Injected,
    scenario: Rotating,
    step: Step,
    moment: Moment,
    strike: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Do something at one moment of a rotation that was planned."""
    fault = injected.injector.fault = Fault(
        "RotateSecret", step, moment, strike, scenario.operation.operation_id
    )
    try:
        yield
        assert fault.struck
    finally:
        injected.injector.fault = None


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again until a condition holds."""
    async with asyncio.timeout(ENDS_WITHIN_SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.1)


async def is_waiting(scenario: Rotating) -> bool:
    """Tell whether a rotation says that it waits for something."""
    return (await scenario.platform.operation(scenario.operation)).waiting_for is not None


async def is_unlocked(scenario: Rotating) -> bool:
    """Tell whether no rotation holds the secret."""
    return (await scenario.secret()).active_operation_id is None


async def end(scenario: Rotating) -> OperationState:
    """Wait for the end of a rotation."""
    return await scenario.end_of(scenario.operation.operation_id, ENDS_WITHIN_SECONDS)


def workflow_of(scenario: Rotating) -> WorkflowHandle[Any, Any]:
    """Return the workflow of a rotation."""
    operation = scenario.operation
    return scenario.platform.client.get_workflow_handle(
        workflow_id_of(OperationType.SECRET_ROTATE, operation.secret_id, operation.operation_id)
    )


async def add_version(scenario: Rotating, value: SecretValue = _BY_HAND) -> int:
    """Add a version as the API does, and return its number."""
    operation = scenario.operation
    async with scenario.platform.api.workspace(operation.workspace_id) as session:
        version = await begin_version(
            session, NewRows(), operation.workspace_id, operation.secret_id
        )
    await asyncio.to_thread(scenario.values.write, place_of(version), value)
    async with scenario.platform.api.workspace(operation.workspace_id) as session:
        await complete_version(session, place_of(version))
    return version.number
