"""The worker of rollouts whose engine moves rows, on queues of its own."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

from activities.interceptor import ActivityInterceptor
from activities.rollout_hosts import RolloutHostActivities
from activities.rollouts import RolloutActivities
from domain.rollout_work import RolloutPlace
from infra.database.engine import Database, DatabaseRole
from infra.database.records.rollout import RolloutRecords
from infra.database.records.steps import StepRecords
from infra.outbound import Outbound
from infra.rollouts.checks import RolloutChecks
from infra.rollouts.target_ends import TargetEnds
from infra.rollouts.target_rows import TargetRows
from infra.rollouts.targets import TargetMoves
from infra.settings import DatabaseSettings, OutboundSettings
from infra.temporal.client import TemporalConnection
from infra.temporal.rollouts import start_rollout
from tests.rollout_engine import LabChecks, LabEngine, LabPlanner
from workflows.registry import TARGET_WORKFLOWS, sandbox
from workflows.rollout.check_target import CheckTarget
from workflows.rollout.plan_target import PlanTarget
from workflows.rollout.run import ReconcileRollouts, RunRollout

Activities = Sequence[Callable[..., Any]]

# Threads are made when they are needed, which is never: all activities here are coroutines.
_PLACES = 1000

ROLLOUT_WORKFLOWS = (RunRollout, CheckTarget, PlanTarget, ReconcileRollouts)


@contextlib.contextmanager
def lab_queues(queue: str) -> Iterator[None]:
    """Keep a lab's workflows from the workers of everything else in this process."""
    with (
        patch("infra.temporal.rollouts.CONTROL_TASK_QUEUE", queue),
        # Workflows are loaded anew for each run, and name the queues of their steps.
        patch("domain.names.ROLLOUTS_TASK_QUEUE", f"{queue}-targets"),
        patch("activities.holds._AGAIN_AFTER", timedelta(milliseconds=200)),
    ):
        yield


class LabWorker:
    """The workers of one lab's queues. The host of its clusters is named like the queue."""

    def __init__(
        self,
        settings: DatabaseSettings,
        connection: TemporalConnection,
        queue: str,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._database = Database(settings, DatabaseRole.WORKER)
        self._sweeper = Database(settings, DatabaseRole.SWEEPER)
        self._steps = StepRecords(settings)
        self._interceptors = interceptors

    @contextlib.asynccontextmanager
    async def running(self, client: Client) -> AsyncIterator[None]:
        """Serve for as long as the context lasts."""
        engine = LabEngine(self._database, self._queue)
        rows = TargetRows(self._database)
        ends = TargetEnds(rows)
        allowed = OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8"]})

        async def start(place: RolloutPlace) -> None:
            await start_rollout(client, place)

        rollouts = RolloutActivities(
            RolloutRecords(self._database, self._sweeper),
            TargetMoves(rows, engine),
            ends,
            engine,
            RolloutChecks(self._database, self._sweeper, Outbound(allowed)),
            start,
        )
        planner = LabPlanner(self._database)
        looks = LabChecks(self._database)
        hosts = RolloutHostActivities(ends, planner, looks)  # type: ignore[arg-type]
        of_targets: Activities = [
            rollouts.begin_target,
            rollouts.begin_target_rollback,
            rollouts.await_target,
            rollouts.await_target_rollback,
        ]
        others: Activities = [
            rollouts.advance_rollout,
            rollouts.check_targets,
            rollouts.start_rollouts,
        ]
        on_host: Activities = [hosts.plan_target, hosts.check_in_cluster, hosts.check_services]
        queues = (
            (self._queue, ROLLOUT_WORKFLOWS, others),
            (f"{self._queue}-targets", TARGET_WORKFLOWS, of_targets),
            (f"control-planes@{self._queue}", (), on_host),
        )
        interceptors = [ActivityInterceptor(self._steps), *self._interceptors]
        with ThreadPoolExecutor(_PLACES) as threads:
            workers = [
                Worker(
                    client,
                    task_queue=queue,
                    workflows=workflows,
                    activities=activities,
                    activity_executor=threads,
                    max_concurrent_activities=_PLACES,
                    interceptors=interceptors,
                    workflow_runner=sandbox(),
                    graceful_shutdown_timeout=timedelta(seconds=5),
                    max_heartbeat_throttle_interval=timedelta(seconds=1),
                    default_heartbeat_throttle_interval=timedelta(seconds=1),
                )
                for queue, workflows, activities in queues
            ]
            async with contextlib.AsyncExitStack() as stack:
                for worker in workers:
                    await stack.enter_async_context(worker)
                yield
        await self._steps.close()
        await self._database.close()
        await self._sweeper.close()
