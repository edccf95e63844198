"""Installs on a cluster that does not answer, or goes."""

import asyncio

import pytest

from domain.cluster import Component
from domain.operation import OperationState, OperationType
from tests.processes import suspended
from tests.workflows.install.site import Site


async def pids_of(site: Site, component: Component) -> list[int]:
    """Return the process of a component of the cluster's control plane."""
    described = await asyncio.to_thread(site.platform.backend.describe, site.cluster)
    return [one.pid for one in described.components if one.component is component and one.pid]


@pytest.mark.full
async def test_an_operation_waits_for_an_api_server_that_does_not_answer(site: Site) -> None:
    web = await site.publish("web")
    first = await site.create(web)
    try:
        await site.platform.succeed(first)
        with suspended(*await pids_of(site, Component.API_SERVER)):
            update = await site.update(first.install_id, web, {"replicas": 2})
            await site.waiting(update, "API server")
            last = (await site.platform.operation(update)).last_error
            assert last is not None
            assert last["reason"] == "DEPENDENCY_UNAVAILABLE"
        await site.platform.succeed(update)
        assert (await site.platform.operation(update)).waiting_for is None
    finally:
        await site.forget(first.install_id)


@pytest.mark.full
async def test_a_delete_takes_over_from_a_create_and_leaves_nothing(site: Site) -> None:
    created = await site.create(await site.publish("with-crd"))
    await site.waiting(created, "approval")
    deleted = await site.delete(created.install_id)
    await site.platform.succeed(deleted)
    assert await site.platform.end_of(created, 1) is OperationState.CANCELLED
    assert await site.remains(created.install_id) == {}


@pytest.mark.full
async def test_a_cluster_that_goes_takes_its_installs_and_their_keys_along(site: Site) -> None:
    """The cluster of this test is one of its own, and its install's operation still waits."""
    platform = site.platform
    requested = await platform.request_cluster(site.owner)
    await platform.succeed(requested)
    other = site.on(requested.cluster)
    created = await other.create(await other.publish("with-crd"))
    await other.waiting(created, "approval")
    vault, workspace = platform.openbao.installs, site.owner.workspace_id
    assert await asyncio.to_thread(vault.leftovers, workspace, created.install_id)
    deletion = await platform.request(OperationType.CLUSTER_DELETE, requested.cluster, site.owner)
    await platform.succeed(deletion)
    assert await platform.end_of(created, 10) is OperationState.CANCELLED
    assert await other.row(created.install_id) is None
    assert await asyncio.to_thread(vault.leftovers, workspace, created.install_id) == []
