"""What the clock starts: forgotten operations, lost ones, and due renewals."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import pytest

from domain.cluster import ClusterState, HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import CONTROL_TASK_QUEUE, workflow_id_of
from domain.operation import OperationState
from infra.database.engine import Database, DatabaseRole
from infra.temporal.outbox import Outbox
from tests.durability import CANCELS_WITHIN_SECONDS, Fault, FaultInjector, Moment
from tests.platform import Platform, Requested
from tests.workflows.cluster.scenarios import (
    ALL_COMPONENTS,
    ClusterScenario,
    Creating,
    Deleting,
    Renewing,
    Resuming,
    Suspending,
)
from tests.workflows.conftest import Injected
from workflows.cluster.renew_certificates import RenewClusterCertificates
from workflows.operation.reconcile import ReconcileOperations

Prepare = Callable[[FaultInjector], None]


async def run(platform: Platform, scheduled: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    """Run one pass, as the schedule does."""
    handle = await platform.client.start_workflow(
        scheduled, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
    )
    await asyncio.wait_for(handle.result(), 60)


def age(platform: Platform) -> None:
    """Make every operation look as if it had been asked for a minute ago."""
    with platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE operations SET started_at = now() - interval '1 minute' WHERE state = 'RUNNING'"
        )


def as_it_is(_injector: FaultInjector) -> None:
    """Disturb nothing."""


def with_repeats(injector: FaultInjector) -> None:
    """Run every activity twice."""
    injector.repeat = True


def failing_at(workflow: str, step: str, moment: Moment) -> Prepare:
    """Fail one activity of the pass once."""

    def prepare(injector: FaultInjector) -> None:
        async def fail() -> None:
            raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "planted")

        injector.fault = Fault(workflow, step, moment, fail)

    return prepare


DISTURBANCES = [
    as_it_is,
    with_repeats,
    *(failing_at("ReconcileOperations", "deliver_operations", moment) for moment in Moment),
]


@pytest.mark.parametrize("disturb", DISTURBANCES)
async def test_an_operation_that_was_never_started_is_started_once(
    injected: Injected, disturb: Prepare
) -> None:
    platform, injector = injected.platform, injected.injector
    caller = await platform.new_workspace()
    planned = await platform.plan_cluster(caller)
    requested = Requested(cluster=planned.control_plane, operation_id=planned.operation_id)
    disturb(injector)
    try:
        age(platform)
        await run(platform, ReconcileOperations.run)
        await run(platform, ReconcileOperations.run)
        await platform.succeed(requested)
        assert sorted(await platform.running(requested.cluster)) == ALL_COMPONENTS
    finally:
        injector.repeat, injector.fault = False, None
        await platform.delete(requested.cluster, caller)


async def test_many_that_run_hide_no_operation_that_was_lost(injected: Injected) -> None:
    platform = injected.platform
    caller = await platform.new_workspace()
    planned = [await platform.plan_cluster(caller) for _ in range(3)]
    lost = {each.operation_id for each in planned}
    with platform.servers.administrator() as administrator:
        # Their workflows were started, says the row, and Temporal knows none of them.
        administrator.execute(
            "UPDATE operations SET workflow_started_at = now(),"
            " started_at = now() - interval '1 minute' WHERE id = ANY(%s)",
            (list(lost),),
        )
    try:
        assert lost <= await _found_lost(platform, in_batches_of=1)
    finally:
        await run(platform, ReconcileOperations.run)
        for each in planned:
            closed = Requested(cluster=each.control_plane, operation_id=each.operation_id)
            await platform.end_of(closed, CANCELS_WITHIN_SECONDS)


async def _found_lost(platform: Platform, *, in_batches_of: int) -> set[str]:
    """Have so many sweeps find what is lost as there are operations."""
    settings = platform.servers.database
    worker, sweeper = (
        Database(settings, DatabaseRole.WORKER),
        Database(settings, DatabaseRole.SWEEPER),
    )
    outbox = Outbox(worker, sweeper, platform.connection, batch=in_batches_of)
    with platform.servers.administrator() as administrator:
        query = "SELECT count(*) FROM operations WHERE state = 'RUNNING'"
        (running,) = administrator.execute(query).fetchone() or (0,)
    try:
        return {
            each.operation.operation_id for _ in range(running) for each in await outbox.deliver()
        }
    finally:
        await worker.close()
        await sweeper.close()


LOST = [
    (Creating, OperationState.FAILED, None),
    (Deleting, OperationState.SUCCEEDED, None),
    (Suspending, OperationState.FAILED, ClusterState.ACTIVE),
    (Resuming, OperationState.FAILED, ClusterState.SUSPENDED),
    (Renewing, OperationState.FAILED, ClusterState.ACTIVE),
]


@pytest.mark.parametrize(
    "repeat",
    [pytest.param(False, id="once"), pytest.param(True, id="twice", marks=pytest.mark.full)],
)
@pytest.mark.parametrize(("kind", "end", "state"), LOST)
async def test_an_operation_whose_workflow_is_lost_is_closed_with_nothing_half_made(
    injected: Injected,
    kind: type[ClusterScenario],
    end: OperationState,
    state: ClusterState | None,
    repeat: bool,  # noqa: FBT001 - a parameter of the matrix
) -> None:
    scenario = kind(injected.platform)
    terminated = await _request_and_terminate(scenario, injected.injector)
    try:
        injected.injector.repeat = repeat
        age(injected.platform)
        await run(injected.platform, ReconcileOperations.run)
        assert await injected.platform.end_of(terminated, CANCELS_WITHIN_SECONDS) is end
        if state is None:
            assert await injected.platform.remains(scenario.cluster) == {}
        else:
            running = ALL_COMPONENTS if state is ClusterState.ACTIVE else []
            await scenario.verify_state(state, running)
    finally:
        injected.injector.repeat, injected.injector.fault = False, None
        await scenario.clean_up()


async def _request_and_terminate(scenario: ClusterScenario, injector: FaultInjector) -> Requested:
    asked: asyncio.Future[Requested] = asyncio.get_running_loop().create_future()
    terminated = asyncio.Event()
    platform = scenario.platform

    async def terminate() -> None:
        requested = await asked
        workflow_id = workflow_id_of(
            scenario.operation_type, requested.cluster.cluster_id, requested.operation_id
        )
        await platform.client.get_workflow_handle(workflow_id).terminate("planted")
        terminated.set()

    injector.fault = Fault(scenario.workflow, scenario.steps[-1], Moment.AFTER, terminate)
    await scenario.request()
    assert scenario.requested is not None
    asked.set_result(scenario.requested)
    await asyncio.wait_for(terminated.wait(), 60)
    injector.fault = None
    return scenario.requested


async def test_a_due_renewal_is_planned_once_and_renews(injected: Injected) -> None:
    platform = injected.platform
    caller = await platform.new_workspace()
    made = await platform.request_cluster(caller)
    await platform.succeed(made)
    try:
        _fall_due(platform, made.cluster)
        await run(platform, RenewClusterCertificates.run)
        await run(platform, RenewClusterCertificates.run)
        async with asyncio.timeout(60):
            while True:
                row = await platform.row(made.cluster)
                assert row is not None
                if row.active_operation_id is None:
                    break
                await asyncio.sleep(0.1)
        assert row.state is ClusterState.ACTIVE
        with platform.servers.administrator() as administrator:
            renewals = administrator.execute(
                "SELECT state FROM operations WHERE owner_id = %s AND type LIKE '%%renew'",
                (made.cluster.cluster_id,),
            ).fetchall()
        assert {state for (state,) in renewals} == {"SUCCEEDED"}
    finally:
        await platform.delete(made.cluster, caller)


def _fall_due(platform: Platform, cluster: HostedControlPlane) -> None:
    with platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE clusters SET certificates_renew_after = now() - interval '1 h' WHERE id = %s",
            (cluster.cluster_id,),
        )
