"""Pods that have a secret in their environment, and that nothing starts anew."""

import asyncio
from typing import Any

from domain.names import install_namespace_of
from domain.secret_use import SecretUse
from infra.database.engine import Database, DatabaseRole
from infra.database.records.install_secret import InstallSecretRecords
from infra.installs.secret_consumers import SecretConsumers
from infra.kubernetes.client import KubernetesClient, Object
from tests.workflows.install.site import Site
from tests.workflows.secret.steering import until

_NO_WORKLOAD = {"templates/deployment.yaml": ""}


def pod(secret: str, name: str, **of_container: Any) -> Object:  # noqa: ANN401 - JSON
    """Return a pod that has a Kubernetes Secret in its environment."""
    key = {"name": secret, "key": "value"}
    container = {
        "name": "one",
        "image": "registry.k8s.io/pause:3.10.1",
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": key}}],
        **of_container,
    }
    spec = {"containers": [container], "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def job(secret: str, name: str) -> Object:
    """Return a Job of one such pod."""
    spec = {"template": {"spec": pod(secret, name)["spec"]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


async def phases(site: Site, install_id: str) -> dict[str, str]:
    """Return the phase of each pod of an install, by the first part of its name."""
    path = f"/api/v1/namespaces/{install_namespace_of(install_id)}/pods"
    pods: list[Object] = await site.ask(lambda client: client.list_all(path))
    return {one["metadata"]["name"].partition("-")[0]: one["status"]["phase"] for one in pods}


def write(site: Site, install_id: str, moment: str) -> None:
    """Have the values of an install been written at a moment, an expression of SQL."""
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            f"UPDATE install_secrets SET synced_at = {moment} WHERE install_id = %s",  # noqa: S608 - of this file
            (install_id,),
        )


async def test_pods_of_no_workload_are_waited_for_and_named(site: Site) -> None:
    secret = SecretUse(await site.new_secret("x"))
    chart = await site.publish("secret-consumer", files=_NO_WORKLOAD)
    operation = await site.create(chart, {"password": {"$secret": {"id": secret.secret_id}}})
    await site.platform.succeed(operation)
    install, name = operation.install_id, secret.object_name
    database = Database(site.platform.servers.database, DatabaseRole.WORKER)
    records, consumers = InstallSecretRecords(database), SecretConsumers(site.clusters)

    async def waiting() -> list[str]:
        return sorted(await consumers.look(operation, await records.objects_of(operation)))

    async def have_started() -> bool:
        wanted = {"alone": "Running", "finished": "Succeeded", "migrate": "Running"}
        return await phases(site, install) == wanted

    def start(client: KubernetesClient) -> None:
        space = f"namespaces/{install_namespace_of(install)}"
        client.create(f"/api/v1/{space}/pods", pod(name, "alone"))
        client.create(f"/api/v1/{space}/pods", pod(name, "finished", args=["dns-suffix"]))
        client.create(f"/apis/batch/v1/{space}/jobs", job(name, "migrate"))

    try:
        await site.ask(start)
        await until(have_started)
        await asyncio.to_thread(write, site, install, "synced_at - interval '1 minute'")
        assert await waiting() == []
        await asyncio.to_thread(write, site, install, "now() + interval '1 second'")
        assert await waiting() == [
            "Job migrate: 1 of its pods started before, and nothing starts them anew",
            "Pod alone: it started before, and nothing starts it anew",
        ]
    finally:
        await database.close()
        await site.forget(install)
