"""The clock finds what was changed by hand, and has it corrected where the customer wants that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlmodel import col, select
from temporalio.client import WorkflowFailureError

from domain.errors import BulkheadError, Reason
from domain.install import DriftState, Health, InstallState, Sync
from domain.install_drift import CORRECTION_MESSAGE, InstallDriftRequest
from domain.names import CONTROL_TASK_QUEUE, install_namespace_of
from domain.operation import OperationState
from infra.database.engine import Database, DatabaseRole
from infra.database.tables import InstallDriftRow, OperationRow
from infra.installs.observer import InstallObserver
from tests.durability import Fault, Moment
from tests.workflows.conftest import Injected
from tests.workflows.install.site import Site
from workflows.install.drift import CompareInstall, DetectInstallDrift


@pytest_asyncio.fixture
async def observer(site: Site) -> AsyncIterator[InstallObserver]:
    """An observer of the host's installs; each test has it look."""
    settings = site.platform.servers.database
    worker = Database(settings, DatabaseRole.WORKER)
    sweeper = Database(settings, DatabaseRole.SWEEPER)
    host = site.platform.servers.control_planes.host
    yield InstallObserver(worker, sweeper, site.clusters, host)
    await worker.close()
    await sweeper.close()


async def detect(site: Site, install_id: str) -> None:
    """Run a pass in which one install is due, and no other: the hosts of others may be gone."""
    with site.platform.servers.administrator() as administrator:
        administrator.execute("UPDATE installs SET drift_looked_at = now()")
        administrator.execute(
            "UPDATE installs SET created_at = now() - interval '1 hour', drift_looked_at = NULL,"
            " observed_at = now() WHERE id = %s",
            (install_id,),
        )
    await site.platform.client.execute_workflow(
        DetectInstallDrift.run,
        id=f"pass-{uuid4().hex}",
        task_queue=CONTROL_TASK_QUEUE,
        execution_timeout=timedelta(seconds=60),
    )


async def compare(site: Site, install_id: str, workflow_id: str = "") -> int:
    """Look at one install, as for a request that waits."""
    request = InstallDriftRequest(
        workspace_id=site.owner.workspace_id,
        install_id=install_id,
        host=site.platform.servers.control_planes.host,
    )
    return await site.platform.client.execute_workflow(
        CompareInstall.run,
        request,
        id=workflow_id or f"look-{uuid4().hex}",
        task_queue=CONTROL_TASK_QUEUE,
        execution_timeout=timedelta(seconds=60),
    )


async def states(site: Site, install_id: str) -> list[DriftState]:
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        query = select(InstallDriftRow).where(InstallDriftRow.install_id == install_id)
        return [row.state for row in await session.exec(query)]


async def last_operation(site: Site, install_id: str) -> OperationRow:
    """Wait for the end of an install's last operation."""
    async with asyncio.timeout(60):
        while (await site.known(install_id)).active_operation_id is not None:  # noqa: ASYNC110 - rows set no event
            await asyncio.sleep(0.1)
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        query = select(OperationRow).where(OperationRow.owner_id == install_id)
        return (await session.exec(query.order_by(col(OperationRow.id).desc()).limit(1))).one()


async def test_what_helm_and_the_platform_applied_has_not_drifted(site: Site) -> None:
    with_secret = await site.installed(await site.publish("with-secret"))
    creation = await site.create(await site.publish("with-crd"))
    await site.waiting(creation, "approval")
    await site.approve(creation)
    await site.platform.succeed(creation)
    for install in (with_secret, creation.install_id):
        await detect(site, install)
        assert await states(site, install) == []
        assert (await site.known(install)).drift_looked_at is not None
        await site.forget(install)


async def test_a_release_is_as_rendered_until_somebody_changes_it_and_is_corrected_on_wish(
    site: Site, observer: InstallObserver
) -> None:
    install = await site.installed(await site.publish("web"))
    await detect(site, install)
    assert await states(site, install) == []
    await observer.look_at_all()
    row = await site.known(install)
    assert (row.health, row.state, row.sync) == (
        Health.HEALTHY,
        InstallState.HEALTHY,
        Sync.SYNCED,
    )

    path = f"/apis/apps/v1/namespaces/{install_namespace_of(install)}/deployments/web"
    before = await site.ask(lambda client: client.get(path))
    body = {"spec": {"replicas": 0}, "metadata": {"labels": {"team": "blue"}}}
    await site.ask(lambda client: client.patch(path, body))
    assert await compare(site, install) == 1
    assert await states(site, install) == [DriftState.OPEN]
    await detect(site, install)
    assert await states(site, install) == [DriftState.OPEN]
    assert (await site.known(install)).active_operation_id is None

    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE installs SET drift_correction = true WHERE id = %s", (install,)
        )
    await detect(site, install)
    operation = await last_operation(site, install)
    assert operation.state is OperationState.SUCCEEDED, operation.error
    assert (await site.current_render(install)).message == CORRECTION_MESSAGE
    after = await site.ask(lambda client: client.get(path))
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"]["team"] == "blue"
    await detect(site, install)
    assert await states(site, install) == [DriftState.CORRECTED]
    await site.forget(install)


async def test_a_look_that_is_repeated_fails_or_is_cancelled_leaves_one_finding(
    site: Site, injected: Injected
) -> None:
    install, injector = await site.installed(await site.publish("web")), injected.injector
    path = f"/apis/apps/v1/namespaces/{install_namespace_of(install)}/deployments/web"
    await site.ask(lambda client: client.patch(path, {"spec": {"replicas": 0}}))

    async def fail() -> None:
        raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "planted")

    try:
        injector.repeat = True
        assert await compare(site, install) == 1
        injector.repeat = False
        for moment in Moment:
            injector.fault = Fault("CompareInstall", install, moment, fail)
            with pytest.raises(WorkflowFailureError):
                await compare(site, install)
            assert injector.fault.struck
            assert await states(site, install) == [DriftState.OPEN]
        for moment in Moment:
            name = f"look-{uuid4().hex}"
            cancel = site.platform.client.get_workflow_handle(name).cancel
            injector.fault = Fault("CompareInstall", install, moment, cancel)
            # One that arrives while the activity ends may come too late.
            with contextlib.suppress(WorkflowFailureError):
                assert await compare(site, install, name) == 1
            assert injector.fault.struck
            assert await states(site, install) == [DriftState.OPEN]
    finally:
        injector.repeat, injector.fault = False, None
    assert await compare(site, install) == 1
    assert await states(site, install) == [DriftState.OPEN]
    assert (await site.known(install)).active_operation_id is None
    await site.forget(install)
