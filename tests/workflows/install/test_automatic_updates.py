"""Installs that get new versions by themselves: which, when, and never the same failure twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlmodel import select

from domain.caller import PrincipalKind
from domain.identifiers import Prefix, new_id
from domain.names import CONTROL_TASK_QUEUE
from domain.operation import OperationState, OperationType
from domain.owned_operation import InstallOperation
from infra.database.engine import Database, DatabaseRole
from infra.database.records import install_sweeps
from infra.database.records.install_sweeps import InstallSweeps
from infra.database.records.operation import install_operation_of
from infra.database.tables import InstallRow, OperationRow
from tests.workflows.install.site import Published, Site
from tests.workflows.stops import stopped
from workflows.install.clock import UpdateInstalls

_BROKEN = {"templates/broken.yaml": "{{ fail `this version is broken` }}"}


@pytest.fixture
def package() -> str:
    """Return the name of a package in which nobody else publishes."""
    return f"web-{uuid4().hex}"


async def updates_in_a_pass(site: Site, install_id: str) -> int:
    """Run one pass of the schedule, and return how many updates of an install it started."""
    before = len(await updates_of(site, install_id))
    await site.platform.client.execute_workflow(
        UpdateInstalls.run, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
    )
    return len(await updates_of(site, install_id)) - before


async def change(site: Site, install_id: str, **changes: Any) -> None:  # noqa: ANN401 - columns
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        row = await session.get_one(InstallRow, (site.owner.workspace_id, install_id))
        for name, value in changes.items():
            setattr(row, name, value)


async def updates_of(site: Site, install_id: str) -> list[OperationRow]:
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        query = select(OperationRow).where(
            OperationRow.owner_id == install_id,
            OperationRow.type == OperationType.INSTALL_RENDER,
        )
        return sorted(await session.exec(query), key=lambda row: row.id)


async def newest_update(site: Site, install_id: str) -> InstallOperation:
    newest = (await updates_of(site, install_id))[-1]
    assert newest.caller["kind"] == PrincipalKind.SYSTEM
    return install_operation_of(newest)


async def test_an_install_follows_its_channel_and_passes_over_what_failed_on_it(
    site: Site, package: str
) -> None:
    install = await site.installed(await site.publish("web", "2.0.0", package=package))
    try:
        assert await updates_in_a_pass(site, install) == 0
        await change(site, install, automatic_updates_enabled=True, observed_at=datetime.now(UTC))
        good = await site.publish("web", "2.1.0", package=package)
        assert await updates_in_a_pass(site, install) == 1
        await site.platform.succeed(await newest_update(site, install))
        row = await site.known(install)
        assert row.current_version_id == good.version_id
        await site.publish("web", "2.2.0", files=_BROKEN, package=package)
        assert await updates_in_a_pass(site, install) == 1
        failed = await newest_update(site, install)
        assert await site.platform.end_of(failed, 60) is OperationState.FAILED
        assert await updates_in_a_pass(site, install) == 0
        better = await site.publish("web", "2.3.0", package=package)
        assert await updates_in_a_pass(site, install) == 1
        await site.platform.succeed(await newest_update(site, install))
        row = await site.known(install)
        assert row.current_version_id == better.version_id
    finally:
        await site.forget(install)


async def test_what_was_taken_back_does_not_come_again_by_itself(site: Site, package: str) -> None:
    install = await site.installed(await site.publish("web", "2.0.0", package=package))
    try:
        first = await site.current_render(install)
        await change(site, install, automatic_updates_enabled=True, observed_at=datetime.now(UTC))
        await site.publish("web", "2.1.0", package=package)
        assert await updates_in_a_pass(site, install) == 1
        await site.platform.succeed(await newest_update(site, install))
        await site.platform.succeed(await site.restore(install, first))
        assert await updates_in_a_pass(site, install) == 0
        better = await site.publish("web", "2.2.0", package=package)
        assert await updates_in_a_pass(site, install) == 1
        await site.platform.succeed(await newest_update(site, install))
        assert (await site.known(install)).current_version_id == better.version_id
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


async def planned_updates(sweeps: InstallSweeps, install_id: str) -> int:
    """Have what is due be planned, and return how many updates of an install that is."""
    planned = await sweeps.plan_due_updates()
    return [each.operation.owner_id for each in planned].count(install_id)


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
    site: Site, sweeps: InstallSweeps, package: str, changes: dict[str, Any]
) -> None:
    install = await idle_install(site, await site.publish("immutable", "1.0.0", package=package))
    try:
        await site.publish("immutable", "1.1.0", package=package)
        await change(site, install, **changes)
        assert await planned_updates(sweeps, install) == 0
    finally:
        await site.forget(install)


async def test_a_hold_that_is_over_an_open_window_and_a_lifted_stop_let_it_go_on(
    site: Site, sweeps: InstallSweeps, package: str
) -> None:
    install = await idle_install(site, await site.publish("immutable", "1.0.0", package=package))
    opened = {"timezone": "UTC", "days": [], "start": "00:00", "end": "00:00"}
    try:
        await site.publish("immutable", "1.1.0", package=package)
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
            assert await planned_updates(sweeps, install) == 0
        assert await planned_updates(sweeps, install) == 1
    finally:
        await site.forget(install)


async def due_secret(site: Site, install_id: str) -> None:
    """Have an install use a secret, of which its cluster has no version yet."""
    secret_id = await site.new_secret("x")
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE installs i SET current_render_id = r.id FROM renders r"
            " WHERE i.id = %s AND r.install_id = i.id",
            (install_id,),
        )
        administrator.execute(
            "INSERT INTO install_secrets (workspace_id, install_id, secret_id, alias, object_name,"
            " key) VALUES (%s, %s, %s, 'current', 'x', 'value')",
            (site.owner.workspace_id, install_id, secret_id),
        )


async def test_stopped_installs_take_no_place_of_others_in_a_pass_over_secrets(
    site: Site, sweeps: InstallSweeps, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = await site.publish("immutable", "1.0.0", package=package)
    held, free = [await idle_install(site, published) for _ in range(2)]
    product = new_id(Prefix.PRODUCT)
    try:
        for install in (held, free):
            await due_secret(site, install)
        await change(site, held, product_id=product)
        asked: list[str] = []

        async def ask(_workspace_id: str, install_id: str) -> None:
            asked.append(install_id)

        monkeypatch.setattr(sweeps, "_plan_sync", ask)
        async with product_stopped(site, package, product):
            await sweeps.plan_due_syncs()
        assert free in asked
        assert held not in asked
        await sweeps.plan_due_syncs()
        assert held in asked
    finally:
        for install in (held, free):
            await site.forget(install)


@asynccontextmanager
async def product_stopped(site: Site, package: str, product_id: str) -> AsyncIterator[None]:
    stop_id, vendor = new_id(Prefix.EMERGENCY_STOP), site.vendor.workspace_id
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "INSERT INTO products (workspace_id, id, package_id, name, version_pin,"
            " marketplace_published, state, version)"
            """ SELECT workspace_id, %s, id, 'web', '{"kind": "latest"}', true, 'active', 1"""
            " FROM packages WHERE workspace_id = %s AND name = %s",
            (product_id, vendor, package),
        )
        administrator.execute(
            "INSERT INTO emergency_stops (workspace_id, id, scope, subject, reason, stopped_by)"
            " VALUES (%s, %s, 'product', %s, 'x', 'x')",
            (vendor, stop_id, product_id),
        )
    try:
        yield
    finally:
        with site.platform.servers.administrator() as administrator:
            administrator.execute(
                "UPDATE emergency_stops SET lifted_at = now() WHERE id = %s", (stop_id,)
            )


async def test_installs_for_which_nothing_fits_keep_no_others_from_their_updates(
    site: Site, sweeps: InstallSweeps, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfit, fit = [
        await idle_install(site, await site.publish("immutable", "1.0.0", package=name))
        for name in (package, f"{package}-other")
    ]
    try:
        newer = await site.publish("immutable", "1.1.0", package=package)
        await site.publish("immutable", "1.1.0", package=f"{package}-other")
        with site.platform.servers.administrator() as administrator:
            administrator.execute(
                "UPDATE package_versions SET compatibility ="
                """ '{"placement": {"regions": ["elsewhere"]}}' WHERE id = %s""",
                (newer.version_id,),
            )
        monkeypatch.setattr(install_sweeps, "_CANDIDATES_A_PASS", 1)
        planned = [each for _ in range(20) for each in await sweeps.plan_due_updates()]
        owners = [each.operation.owner_id for each in planned]
        assert (owners.count(fit), owners.count(unfit)) == (1, 0)
    finally:
        for install in (unfit, fit):
            await site.forget(install)


async def test_an_update_that_nobody_approves_gives_way_to_a_secret_and_is_planned_again(
    site: Site, sweeps: InstallSweeps, package: str
) -> None:
    install = await idle_install(site, await site.publish("immutable", "1.0.0", package=package))
    try:
        await site.publish("immutable", "1.1.0", package=package)
        assert await planned_updates(sweeps, install) == 1
        await due_secret(site, install)
        update = (await updates_of(site, install))[-1].id
        given_way = (site.owner.workspace_id, update)
        assert given_way not in (await sweeps.plan_due_syncs()).cancelled
        with site.platform.servers.administrator() as administrator:
            administrator.execute(
                "UPDATE operations SET waiting_for = 'approval' WHERE id = %s", (update,)
            )
        assert given_way in (await sweeps.plan_due_syncs()).cancelled
        assert (await updates_of(site, install))[-1].cancel_requested_at is not None
        # As the operation's workflow ends it.
        with site.platform.servers.administrator() as administrator:
            for statement in (
                "UPDATE operations SET state = 'CANCELLED', completed_at = now() WHERE id = %s",
                "UPDATE renders SET state = 'failed' WHERE operation_id = %s",
                "UPDATE installs SET active_operation_id = NULL WHERE active_operation_id = %s",
            ):
                administrator.execute(statement, (update,))
        planned = (await sweeps.plan_due_syncs()).planned
        assert install in [each.operation.owner_id for each in planned]
        await change(site, install, active_operation_id=None)
        assert await planned_updates(sweeps, install) == 1
    finally:
        await site.forget(install)
