"""Secrets that an install follows by another alias than `current`, which no rotation waits for."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio
from sqlmodel import col, select

from domain.errors import BulkheadError, Reason
from domain.operation import OperationState, OperationType, Step
from domain.owned_operation import InstallOperation
from domain.secret_use import SecretUse
from infra.database.records.operation import install_operation_of
from infra.database.tables import OperationRow
from tests.durability import Fault, Moment
from tests.workflows.conftest import Injected
from tests.workflows.install.site import Published, Site
from tests.workflows.install.syncing import a_pass, add_version, pods_of, point
from workflows.install.sync_secrets import SyncInstallSecrets

_ALIAS = "beta"


@dataclass(frozen=True)
class Following:
    """An install whose pods have the first version in their environment, and a second one."""

    site: Site
    chart: Published
    install_id: str
    use: SecretUse
    pods: set[str]

    async def carried(self) -> bytes:
        """Return what the install's Kubernetes Secret has."""
        found = await self.site.find(self.install_id, f"secrets/{self.use.object_name}")
        assert found is not None
        return base64.b64decode(found["data"]["value"])

    async def newest_sync(self) -> InstallOperation:
        """Return the operation that a pass planned last."""
        async with self.site.platform.api.workspace(self.site.owner.workspace_id) as session:
            query = (
                select(OperationRow)
                .where(
                    OperationRow.owner_id == self.install_id,
                    OperationRow.type == OperationType.INSTALL_SYNC_SECRETS,
                )
                .order_by(col(OperationRow.id).desc())
                .limit(1)
            )
            return install_operation_of((await session.exec(query)).one())


@pytest_asyncio.fixture(loop_scope="session")
async def following(site: Site) -> AsyncIterator[Following]:
    use = SecretUse(await site.new_secret("the first value"), _ALIAS)
    point(site, use.secret_id, _ALIAS, 1)
    chart = await site.publish("secret-consumer")
    values = {"password": {"$secret": {"id": use.secret_id, "alias": _ALIAS}}}
    install = await site.installed(chart, values)
    try:
        assert await a_pass(site) == 0
        pods = await pods_of(site, install)
        await add_version(site, use.secret_id, b"the second value")
        yield Following(site, chart, install, use, pods)
    finally:
        await site.forget(install)


async def test_what_an_update_brought_is_taken_over(following: Following) -> None:
    site, install = following.site, following.install_id
    point(site, following.use.secret_id, _ALIAS, 2)
    # It writes the new value, and starts no pod anew.
    update = await site.plan_update(install, following.chart.version_id, skip_unchanged=False)
    await site.start(OperationType.INSTALL_RENDER, update)
    await site.platform.succeed(update)
    assert await following.carried() == b"the second value"
    assert await pods_of(site, install) == following.pods
    assert await a_pass(site) == 1
    await site.platform.succeed(await following.newest_sync())
    assert following.pods.isdisjoint(await pods_of(site, install))
    assert await a_pass(site) == 0


async def test_a_sync_that_failed_while_it_waited_is_tried_again_in_a_while(
    following: Following, injected: Injected
) -> None:
    site, install = following.site, following.install_id

    async def strike() -> None:
        raise BulkheadError(Reason.DEADLINE_EXCEEDED, "planted", retryable=False)

    point(site, following.use.secret_id, _ALIAS, 2)
    workflow = SyncInstallSecrets.__name__
    injected.injector.fault = Fault(workflow, Step.AWAIT_CONSUMERS, Moment.BEFORE, strike)
    try:
        assert await a_pass(site) == 1
        failed = await following.newest_sync()
        assert await site.platform.end_of(failed, 60) is OperationState.FAILED
    finally:
        injected.injector.fault = None
    assert await following.carried() == b"the second value"
    assert await a_pass(site) == 0
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE operations SET completed_at = now() - interval '11 minutes' WHERE id = %s",
            (failed.operation_id,),
        )
    assert await a_pass(site) == 1
    await site.platform.succeed(await following.newest_sync())
    assert following.pods.isdisjoint(await pods_of(site, install))
