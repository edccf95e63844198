"""A step that waits for one of the host's places for helm has not begun."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.holds import HeldError
from activities.installs import InstallActivities
from domain.operation import (
    WAITING_FOR_APPROVAL,
    WAITING_FOR_EMERGENCY_STOP,
    Step,
    StepStatus,
)
from domain.owned_operation import InstallOperation
from infra.database.engine import Database, DatabaseRole
from infra.database.records.endings import OperationRecords
from infra.database.records.install import InstallRecords
from infra.helm.places import Places
from infra.helm.program import Helm
from infra.installs.deployer import Deployer
from infra.installs.renders import Renders
from tests.workflows.install.deploying import helm_settings
from tests.workflows.install.scenarios import publish_app
from tests.workflows.install.site import Site
from tests.workflows.stops import stopped


@pytest_asyncio.fixture(loop_scope="session")
async def deployer(site: Site) -> Deployer:
    """Return what deploys to the site's cluster on a host that has one place for helm."""
    program = helm_settings(site.platform.servers.home).program
    helm = Helm(program, Places(renders=1, deployments=1))
    vault = site.platform.openbao.installs
    return Deployer(site.clusters, Renders(site.clusters, vault, cast("Any", None), helm), helm)


@pytest_asyncio.fixture(loop_scope="session")
async def activities(site: Site, deployer: Deployer) -> AsyncIterator[InstallActivities]:
    database = Database(site.platform.servers.database, DatabaseRole.WORKER)
    yield InstallActivities(
        deployer,
        cast("Any", None),
        site.platform.openbao.installs,
        InstallRecords(database),
        OperationRecords(database),
        helm_settings(site.platform.servers.home),
    )
    await database.close()


async def waits_to_apply(
    activities: InstallActivities, operation: InstallOperation
) -> asyncio.Task[None]:
    """Run the step as a worker does once it may begin, up to where it waits for a place."""
    environment, begins = ActivityEnvironment(), asyncio.Event()
    environment.info = replace(environment.info, activity_id=Step.APPLY_RELEASE)

    async def attempt() -> None:
        begins.set()
        await activities.apply_release(operation)

    waiting = asyncio.create_task(environment.run(attempt))
    await begins.wait()
    return waiting


async def test_a_deployment_that_waited_for_a_place_does_not_begin_under_a_stop(
    site: Site, deployer: Deployer, activities: InstallActivities
) -> None:
    platform = site.platform
    operation = await site.create(await publish_app(site), {"greeting": "hi", "password": "none"})
    try:
        await site.waiting(operation, WAITING_FOR_APPROVAL)
        async with stopped(platform, site.owner):
            async with deployer.place(site.vendor.workspace_id):
                waiting = await waits_to_apply(activities, operation)
            with pytest.raises(HeldError):
                await waiting
            assert await site.find(operation.install_id, "deployments/app") is None
            row = await platform.operation(operation)
            assert row.waiting_for == WAITING_FOR_EMERGENCY_STOP
            steps = {step.name: step.status for step in await platform.steps(operation)}
            assert steps[Step.APPLY_RELEASE] is StepStatus.PENDING
        # Nobody has the place.
        async with deployer.place(site.vendor.workspace_id) as waited:
            assert not waited
        await site.approve(operation)
        await platform.succeed(operation)
    finally:
        await site.forget(operation.install_id)
