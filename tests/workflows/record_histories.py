"""Records the histories that today's code must be able to replay for ever.

`python -m tests.workflows.record_histories` runs each operation once on real servers, to its end,
failed and cancelled, and writes what is not there yet. A committed history is never recorded anew:
it stands for the workflows that run somewhere with the code of that day. When a workflow changes,
delete nothing; run this with another PREFIX.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle

from domain.names import purge_workflow_id_of, workflow_id_of
from domain.operation import OwnerType
from infra.database.records.secret import begin_purging
from infra.temporal.purge import start_purge
from tests import charts
from tests.durability import Fault, FaultInjector, Moment
from tests.histories import keep_history
from tests.platform import Asked, Platform, running_platform
from tests.servers import Servers, running_servers
from tests.workflows.cluster import scenarios as of_clusters
from tests.workflows.cluster.scenarios import ClusterScenario
from tests.workflows.hetzner import Hetzner, ensure_engine, running_hetzner
from tests.workflows.install.deploying import helm_settings
from tests.workflows.install.scenarios import (
    CreatingInstall,
    DeletingInstall,
    InstallScenario,
    RestoringInstall,
    UpdatingInstall,
)
from tests.workflows.install.site import running_site
from tests.workflows.install.syncing import SyncingSecrets
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.groups import CreatingPool, Replacing
from tests.workflows.machine.cloud.scenarios import Creating, Deleting
from tests.workflows.machine.cloud.sleeping import Resuming, Suspending
from tests.workflows.machine.fleet import running_fleet
from tests.workflows.machine.scenarios import (
    Bootstrapping,
    Cordoning,
    DeletingMachine,
    MachineScenario,
    Repairing,
    RevokingBootstrap,
    Uncordoning,
)
from tests.workflows.package.scenarios import Publishing
from tests.workflows.rollout.recording import record_rollouts
from tests.workflows.secret.scenarios import Draining

KINDS = (
    of_clusters.Creating,
    of_clusters.Deleting,
    of_clusters.Suspending,
    of_clusters.Resuming,
    of_clusters.Renewing,
    Draining,
)
OF_MACHINES = (
    Bootstrapping,
    DeletingMachine,
    Cordoning,
    Uncordoning,
    Repairing,
    RevokingBootstrap,
)
IN_CLOUDS = (Creating, Deleting, Suspending, Resuming, Replacing, CreatingPool)
OF_INSTALLS = (CreatingInstall, UpdatingInstall, RestoringInstall, DeletingInstall, SyncingSecrets)
Recorded = (
    ClusterScenario
    | CreatingPool
    | Draining
    | InstallScenario
    | MachineScenario
    | Publishing
    | RevokingBootstrap
)
# Workflows of which the verb of the operation says too little.
NAMES = {
    "CreateMachine": "machine-create",
    "DeleteCloudMachine": "machine-delete-cloud",
    "CreateMachinePool": "machine-pool-create",
    "CreatePackage": "package-create",
}
NOUNS = {OwnerType.INSTALL: "install-", OwnerType.MACHINE: "machine-"}
HISTORIES = Path(__file__).parent / "histories"


async def record(prefix: str) -> None:
    """Record every kind of end of every operation."""
    with running_servers() as servers:
        injector = FaultInjector()
        with running_hetzner(servers.home) as hetzner:
            await _record_all(servers, hetzner, injector, prefix)
        await record_rollouts(servers, prefix)


async def _record_all(
    servers: Servers, hetzner: Hetzner, injector: FaultInjector, prefix: str
) -> None:
    async with running_platform(
        servers,
        injector,
        providers=hetzner.providers,
        stacks=hetzner.stacks,
        helm=helm_settings(servers.home),
    ) as platform:
        await _record_purge(platform, f"{prefix}-purge-succeeded")
        await _record_packages(platform, injector, prefix)
        for kind in KINDS:
            await _record_ends(kind(platform), injector, prefix)
        async with running_fleet(platform) as fleet:
            for of_machines in OF_MACHINES:
                await _record_ends(of_machines(fleet), injector, prefix)
            ensure_engine(hetzner.stacks)
            with hetzner.servers.joining(fleet):
                await _record_in_clouds(Customer(fleet, hetzner), injector, prefix)
        await record_installs(platform, injector, prefix)


async def record_installs(platform: Platform, injector: FaultInjector, prefix: str) -> None:
    """Record every kind of end of the operations of installs."""
    async with running_site(platform) as site:
        for of_installs in OF_INSTALLS:
            await _record_ends(of_installs(site), injector, prefix)


async def _record_packages(platform: Platform, injector: FaultInjector, prefix: str) -> None:
    with charts.running_repository() as repository:
        repository.add(charts.archive("web"))
        await _record_ends(Publishing(platform, repository), injector, prefix)


async def _record_in_clouds(customer: Customer, injector: FaultInjector, prefix: str) -> None:
    await customer.open()
    for in_cloud in IN_CLOUDS:
        await _record_ends(in_cloud(customer), injector, prefix)
    customer.close()


async def _record_ends(scenario: Recorded, injector: FaultInjector, prefix: str) -> None:
    await _record(scenario, f"{prefix}-{_verb_of(scenario)}-succeeded")
    if not scenario.forward_only:
        await _record_cancelled(scenario, injector, prefix)


def _verb_of(scenario: Recorded) -> str:
    """Return the verb, with its noun where a cluster's operation may have the same."""
    if scenario.workflow in NAMES:
        return NAMES[scenario.workflow]
    return NOUNS.get(scenario.facts.owner_type, "") + scenario.facts.verb


async def _record_cancelled(scenario: Recorded, injector: FaultInjector, prefix: str) -> None:
    asked: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()

    async def cancel() -> None:
        await scenario.platform.cancel(await asked)

    injector.fault = Fault(scenario.workflow, scenario.steps[-1], Moment.BEFORE, cancel)
    await _record(scenario, f"{prefix}-{_verb_of(scenario)}-cancelled", asked)
    injector.fault = None


async def _record(
    scenario: Recorded,
    name: str,
    asked: asyncio.Future[Asked] | None = None,
) -> None:
    operation_id = await scenario.request()
    assert scenario.requested is not None
    if asked is not None:
        asked.set_result(scenario.requested)
    await scenario.end_of(operation_id, 120)
    handle = scenario.platform.client.get_workflow_handle(
        workflow_id_of(scenario.operation_type, scenario.owner_id, operation_id)
    )
    # The rows are written before the workflow closes.
    try:
        await handle.result()
    except Exception as error:  # noqa: BLE001 - a cancelled workflow raises, and that is its end
        sys.stderr.write(f"{name}: {error}\n")
    await _keep(scenario.platform, handle, name)
    await scenario.clean_up()


async def _record_purge(platform: Platform, name: str) -> None:
    scenario = Draining(platform)
    secret_id, caller = await scenario.make(), await scenario.caller()
    async with platform.api.workspace(caller.workspace_id) as session:
        await begin_purging(session, secret_id)
    await start_purge(platform.client, caller.workspace_id, secret_id)
    handle = platform.client.get_workflow_handle(purge_workflow_id_of(secret_id))
    await handle.result()
    await _keep(platform, handle, name)
    scenario.close()


async def _keep(platform: Platform, handle: WorkflowHandle[Any, Any], name: str) -> None:
    path = HISTORIES / f"{name}.json"
    if await keep_history(handle, platform.connection.codec, path):
        sys.stderr.write(f"{path.name}\n")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
