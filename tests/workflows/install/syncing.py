"""How an install takes over a new version of its secret, and what must be true afterwards."""

import asyncio
import base64
from uuid import uuid4

from domain.install import INSTALL_CONSUMER, InstallState
from domain.names import CONTROL_TASK_QUEUE, install_namespace_of
from domain.operation import OperationType
from domain.owned_operation import InstallOperation
from domain.secret import CURRENT, SecretValue
from domain.secret_use import SecretUse
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import install_operation_of, plan_operation
from infra.database.records.secret import begin_version, complete_version, place_of
from infra.database.tables import ClusterRow, InstallRow, SecretReferenceRow, SecretRow
from infra.kubernetes.client import Object
from tests.workflows.install.scenarios import InstallScenario
from tests.workflows.install.site import Site
from workflows.install.clock import SyncSecretsOfInstalls

_FIRST, _SECOND = b"the first value", b"the second value"


async def add_version(site: Site, secret_id: str, value: bytes) -> None:
    """Have another version become the current one of a secret."""
    workspace = site.owner.workspace_id
    async with site.platform.api.workspace(workspace) as session:
        rows = NewRows()
        version = await begin_version(session, rows, workspace, secret_id)
        await rows.write(session)
    place = place_of(version)
    await asyncio.to_thread(site.platform.openbao.values.write, place, SecretValue(value))
    async with site.platform.api.workspace(workspace) as session:
        version = await complete_version(session, place)
        secret = await session.get_one(SecretRow, (workspace, secret_id))
        secret.aliases = {**secret.aliases, CURRENT: version.number}


def point(site: Site, secret_id: str, alias: str, number: int) -> None:
    """Have an alias lead to a version."""
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE secrets SET aliases = aliases || jsonb_build_object(%s::text, %s::integer)"
            " WHERE id = %s",
            (alias, number, secret_id),
        )


async def a_pass(site: Site) -> int:
    """Run one pass of the schedule."""
    result: int = await site.platform.client.execute_workflow(
        SyncSecretsOfInstalls.run, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
    )
    return result


async def pods_of(site: Site, install_id: str) -> set[str]:
    """Return the uids of an install's pods that do not end."""
    path = f"/api/v1/namespaces/{install_namespace_of(install_id)}/pods"
    found: list[Object] = await site.ask(lambda client: client.list_all(path))
    return {pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


class SyncingSecrets(InstallScenario):
    """An install whose pods started with the version before."""

    operation_type = OperationType.INSTALL_SYNC_SECRETS

    async def prepare(self) -> InstallOperation:
        site = self.site
        secret_id = await site.new_secret(_FIRST.decode())
        values = {"password": {"$secret": {"id": secret_id}}}
        install_id = await site.installed(await site.publish("secret-consumer"), values)
        await add_version(site, secret_id, _SECOND)
        self._use = SecretUse(secret_id)
        async with site.platform.api.workspace(site.owner.workspace_id) as session:
            install = await session.get_one(InstallRow, (site.owner.workspace_id, install_id))
            cluster = await session.get_one(
                ClusterRow, (site.owner.workspace_id, site.cluster.cluster_id)
            )
            kind = self.operation_type
            request = {"type": kind, "install_id": install_id}
            operation = plan_operation(
                session, kind, install, site.owner, request=request, cluster=cluster
            )
            await session.flush()
            return install_operation_of(operation)

    async def verify_done(self) -> None:
        await self._verify_idle()
        assert await self._carried() == _SECOND
        app = await self.site.find(self.owner_id, "deployments/consumer")
        assert app is not None
        assert app["spec"]["template"]["metadata"]["annotations"]
        workspace = self.site.owner.workspace_id
        async with self.platform.api.workspace(workspace) as session:
            key = (workspace, self._use.secret_id, INSTALL_CONSUMER, self.owner_id)
            reference = await session.get_one(SecretReferenceRow, key)
        assert (reference.acknowledges, reference.acknowledged_number) == (True, 2)

    async def verify_undone(self) -> None:
        await self._verify_idle()
        # What was written stays, and is what is wanted.
        assert await self._carried() in {_FIRST, _SECOND}

    async def _verify_idle(self) -> None:
        row = await self.site.known(self.owner_id)
        assert (row.state, row.active_operation_id) == (InstallState.HEALTHY, None)

    async def _carried(self) -> bytes:
        found = await self.site.find(self.owner_id, f"secrets/{self._use.object_name}")
        assert found is not None
        return base64.b64decode(found["data"]["value"])
