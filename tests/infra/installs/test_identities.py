"""What an install's namespace has from its first moment on."""

import asyncio

from domain.cluster import Component
from domain.identifiers import Prefix, new_id
from domain.names import install_namespace_of, install_user_of
from infra.installs.identities import prepare_namespace
from infra.kubernetes.client import KubernetesClient, Object
from tests.infra.installs.world import World
from tests.processes import suspended


async def test_a_bare_pod_is_admitted_before_any_controller_has_seen_the_namespace(
    world: World,
) -> None:
    install_id = new_id(Prefix.INSTALL)
    space = install_namespace_of(install_id)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "namespace": space},
        "spec": {"containers": [{"name": "bare", "image": "none"}]},
    }

    def admit(client: KubernetesClient) -> Object:
        prepare_namespace(client, install_id)
        return client.create(f"/api/v1/namespaces/{space}/pods?dryRun=All", pod)

    described = await asyncio.to_thread(world.host.backend.describe, world.cluster)
    controllers = next(
        one.pid for one in described.components if one.component is Component.CONTROLLER_MANAGER
    )
    assert controllers is not None
    with suspended(controllers):
        admitted = await world.clusters.ask(world.cluster, admit)
        # Once more, now that all of it is there.
        await world.clusters.ask(
            world.cluster, lambda client: prepare_namespace(client, install_id)
        )
    assert admitted["spec"]["serviceAccountName"] == "default"


async def test_rights_hold_when_the_namespace_is_prepared(world: World) -> None:
    """Of twenty that are used at once, an API server that is busy misses one otherwise."""

    async def use() -> None:
        install_id = new_id(Prefix.INSTALL)
        space = install_namespace_of(install_id)
        await world.clusters.ask(
            world.cluster, lambda client: prepare_namespace(client, install_id)
        )
        settings = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "first"},
        }
        path = f"/api/v1/namespaces/{space}/configmaps?dryRun=All"
        await world.clusters.ask_as(
            world.cluster, install_user_of(install_id), lambda client: client.create(path, settings)
        )

    await asyncio.gather(*(use() for _ in range(20)))
