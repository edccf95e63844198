"""Records the histories that today's code must be able to replay for ever.

`python -m tests.workflows.record_histories` runs each operation once on real servers, to its end,
failed and cancelled, and writes what is not there yet. A committed history is never recorded anew:
it stands for the workflows that run somewhere with the code of that day. When a workflow changes,
delete nothing; run this with another PREFIX.
"""

import asyncio
import re
import sys
from pathlib import Path

from domain.names import workflow_id_of
from domain.operation import OperationType
from tests.durability import Fault, FaultInjector, Moment
from tests.platform import Requested, running_platform
from tests.servers import running_servers
from tests.workflows.cluster.scenarios import (
    ClusterScenario,
    Creating,
    Deleting,
    Renewing,
    Resuming,
    Suspending,
)

HISTORIES = Path(__file__).parent / "histories"


async def record(prefix: str) -> None:
    """Record every kind of end of every operation."""
    with running_servers() as servers:
        injector = FaultInjector()
        async with running_platform(servers, injector) as platform:
            for kind in (Creating, Deleting, Suspending, Resuming, Renewing):
                scenario: ClusterScenario = kind(platform)
                await _record(scenario, f"{prefix}-{scenario.facts.verb}-succeeded")
                if not scenario.forward_only:
                    await _record_cancelled(scenario, injector, prefix)


async def _record_cancelled(
    scenario: ClusterScenario, injector: FaultInjector, prefix: str
) -> None:
    asked: asyncio.Future[Requested] = asyncio.get_running_loop().create_future()

    async def cancel() -> None:
        await scenario.platform.cancel(await asked)

    injector.fault = Fault(scenario.workflow, scenario.steps[-1], Moment.BEFORE, cancel)
    await _record(scenario, f"{prefix}-{scenario.facts.verb}-cancelled", asked)
    injector.fault = None


async def _record(
    scenario: ClusterScenario, name: str, asked: asyncio.Future[Requested] | None = None
) -> None:
    operation_id = await scenario.request()
    assert scenario.requested is not None
    if asked is not None:
        asked.set_result(scenario.requested)
    await scenario.end_of(operation_id, 120)
    operation_type: OperationType = scenario.operation_type
    handle = scenario.platform.client.get_workflow_handle(
        workflow_id_of(operation_type, scenario.cluster.cluster_id, operation_id)
    )
    # The rows are written before the workflow closes.
    try:
        await handle.result()
    except Exception as error:  # noqa: BLE001 - a cancelled workflow raises, and that is its end
        sys.stderr.write(f"{name}: {error}\n")
    path = HISTORIES / f"{name}.json"
    if not path.exists():
        history = (await handle.fetch_history()).to_json()
        # Which machine recorded it is nobody's business.
        path.write_text(re.sub(r'"identity": *"\d+@[^"]*"', '"identity": "worker"', history))
        sys.stderr.write(f"{path.name}\n")
    await scenario.clean_up()


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
