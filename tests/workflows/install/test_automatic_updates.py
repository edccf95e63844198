"""Installs that get new versions by themselves: which, when, and never the same failure twice."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlmodel import select

from domain.caller import PrincipalKind
from domain.names import CONTROL_TASK_QUEUE
from domain.operation import InstallOperation, OperationState, OperationType
from infra.database.engine import Database, DatabaseRole
from infra.database.records.install_sweeps import InstallSweeps
from infra.database.records.operation import install_operation_of
from infra.database.tables import InstallRow, OperationRow
from tests.workflows.install.site import Published, Site
from tests.workflows.stops import stopped
from workflows.install.clock import UpdateInstalls

_BROKEN = {"templates/broken.yaml": "{{ fail `this version is broken` }}"}


async def a_pass(site: Site) -> int:
    """Run one pass of the schedule."""
    result: int = await site.platform.client.execute_workflow(
        UpdateInstalls.run, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
    )
    return result


async def change(site: Site, install_id: str, **changes: Any) -> None:  # noqa: ANN401 - columns
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        row = await session.get_one(InstallRow, (site.owner.workspace_id, install_id))
        for name, value in changes.items():
            setattr(row, name, value)


async def newest_update(site: Site, install_id: str) -> InstallOperation:
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        query = select(OperationRow).where(
            OperationRow.owner_id == install_id,
            OperationRow.type == OperationType.INSTALL_RENDER,
        )
        newest = max(await session.exec(query), key=lambda row: row.id)
        assert newest.caller["kind"] == PrincipalKind.SYSTEM
        return install_operation_of(newest)


async def test_an_install_follows_its_channel_and_passes_over_what_failed_on_it(
    site: Site,
) -> None:
    install = await site.installed(await site.publish("web", "2.0.0"))
    try:
        assert await a_pass(site) == 0
        await change(site, install, automatic_updates_enabled=True, observed_at=datetime.now(UTC))
        good = await site.publish("web", "2.1.0")
        assert await a_pass(site) == 1
        await site.platform.succeed(await newest_update(site, install))
        row = await site.known(install)
        assert row.current_version_id == good.version_id
        await site.publish("web", "2.2.0", files=_BROKEN)
        assert await a_pass(site) == 1
        failed = await newest_update(site, install)
        assert await site.platform.end_of(failed, 60) is OperationState.FAILED
        assert await a_pass(site) == 0
        better = await site.publish("web", "2.3.0")
        assert await a_pass(site) == 1
        await site.platform.succeed(await newest_update(site, install))
        row = await site.known(install)
        assert row.current_version_id == better.version_id
    finally:
        await site.forget(install)


@pytest_asyncio.fixture(loop_scope="session")
async def sweeps(site: Site) -> AsyncIterator[InstallSweeps]:
    settings = site.platform.servers.database
    worker, sweeper = (
        Database(settings, DatabaseRole.WORKER),
        Database(settings, DatabaseRole.SWEEPER),
    )
    yield InstallSweeps(worker, sweeper)
    await worker.close()
    await sweeper.close()


async def idle_install(site: Site, published: Published) -> str:
    """Have the rows of an install that is deployed, without deploying it."""
    operation = await site.plan_create(published)
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE operations SET state = 'CANCELLED', completed_at = now() WHERE id = %s",
            (operation.operation_id,),
        )
        administrator.execute(
            "UPDATE installs SET active_operation_id = NULL, automatic_updates_enabled = true,"
            " current_version_id = desired_version_id, observed_at = now() WHERE id = %s",
            (operation.install_id,),
        )
    return operation.install_id


def closed_window() -> dict[str, Any]:
    opens = datetime.now(UTC) + timedelta(hours=6)
    closes = opens + timedelta(hours=1)
    return {"timezone": "UTC", "days": [], "start": f"{opens:%H:%M}", "end": f"{closes:%H:%M}"}


@pytest.mark.parametrize(
    "changes",
    [
        {"automatic_updates_enabled": False},
        {"pinned_semver": "1.0.0"},
        {"held_at": datetime.now(UTC), "hold_reason": "a freeze"},
        {"update_window": closed_window()},
        {"observed_at": datetime.now(UTC) - timedelta(hours=1)},
        {"active_operation_id": "op_1"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_it_waits_for_its_customer_and_its_cluster(
    site: Site, sweeps: InstallSweeps, changes: dict[str, Any]
) -> None:
    install = await idle_install(site, await site.publish("immutable", "1.0.0"))
    try:
        await site.publish("immutable", "1.1.0")
        await change(site, install, **changes)
        assert await sweeps.plan_due_updates() == []
    finally:
        await site.forget(install)


async def test_a_hold_that_is_over_an_open_window_and_a_lifted_stop_let_it_go_on(
    site: Site, sweeps: InstallSweeps
) -> None:
    install = await idle_install(site, await site.publish("immutable", "1.0.0"))
    opened = {"timezone": "UTC", "days": [], "start": "00:00", "end": "00:00"}
    try:
        await site.publish("immutable", "1.1.0")
        past = datetime.now(UTC) - timedelta(minutes=1)
        await change(
            site,
            install,
            held_at=past,
            hold_reason="over",
            hold_until=past,
            update_window=opened,
        )
        async with stopped(site.platform, site.owner):
            assert await sweeps.plan_due_updates() == []
        planned = await sweeps.plan_due_updates()
        assert [operation.operation.owner_id for operation in planned] == [install]
    finally:
        await site.forget(install)
