"""How each operation on an install is asked for, and what must be true afterwards."""

import asyncio
import base64
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from domain.install import InstallState, RenderState
from domain.names import install_namespace_of
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from domain.owned_operation import InstallOperation
from domain.secret_use import SecretUse
from infra.database.tables import RenderRow
from infra.kubernetes.client import Object
from tests.workflows.install.site import Published, Site

# A Deployment that reads a secret of the customer's, and a Secret of the chart's own.
_APP = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: registry.k8s.io/pause:3.10.1
          env:
            - {name: GREETING, value: {{ .Values.greeting | quote }}}
            - name: PASSWORD
              valueFrom: {secretKeyRef: {name: {{ .Values.password | quote }}, key: value}}
---
apiVersion: v1
kind: Secret
metadata: {name: own}
stringData: {greeting: {{ .Values.greeting | quote }}}
"""
_ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"


async def publish_app(site: Site) -> Published:
    """Have a version with all that a chart may bring: a CRD, a role, a Secret, a Deployment."""
    return await site.publish("with-crd", files={"templates/app.yaml": _APP})


class InstallScenario(ABC):
    """What the scenarios have in common: one install at a time, of whose plans all are approved."""

    operation_type: OperationType

    def __init__(self, site: Site) -> None:
        self.site = site
        self.platform = site.platform
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.forward_only = self.facts.forward_only
        self.steps: Sequence[str] = [
            step for step in self.facts.steps if step is not Step.AWAIT_PREDECESSOR
        ]
        self.requested: InstallOperation | None = None
        self._approving: asyncio.Task[None] | None = None

    @abstractmethod
    async def prepare(self) -> InstallOperation: ...

    @abstractmethod
    async def verify_done(self) -> None: ...

    @abstractmethod
    async def verify_undone(self) -> None: ...

    async def plan(self) -> str:
        self.requested = await self.prepare()
        if not self.forward_only:
            self._approving = asyncio.create_task(self._approve(self.requested))
        return self.requested.operation_id

    async def request(self) -> str:
        operation_id = await self.plan()
        await self.site.start(self.operation_type, self.operation)
        return operation_id

    @property
    def operation(self) -> InstallOperation:
        assert self.requested is not None
        return self.requested

    @property
    def owner_id(self) -> str:
        return self.operation.install_id

    async def cancel(self, operation_id: str) -> None:
        assert self.operation.operation_id == operation_id
        assert await self.platform.cancel(self.operation)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert self.operation.operation_id == operation_id
        return await self.platform.end_of(self.operation, within_seconds)

    async def clean_up(self) -> None:
        if self._approving is not None:
            self._approving.cancel()
            await asyncio.wait({self._approving})
        if self.requested is not None:
            await self.site.forget(self.requested.install_id)

    async def values(self, greeting: str) -> dict[str, Any]:
        """Return values that refer to a secret of their own, whose value is the greeting."""
        secret_id = await self.site.new_secret(f"secret {greeting}")
        return {"greeting": greeting, "password": {"$secret": {"id": secret_id}}}

    async def deployed(self, greeting: str) -> str:
        """Have an install that is deployed; return its id."""
        operation = await self.site.plan_create(
            await publish_app(self.site), await self.values(greeting)
        )
        await self.site.start(OperationType.INSTALL_CREATE, operation)
        await self.site.waiting(operation, "approval")
        await self.site.approve(operation)
        await self.platform.succeed(operation)
        return operation.install_id

    async def verify_runs(self, greeting: str) -> None:
        """Assert that the install is what was rendered with a greeting, on the cluster and off."""
        row = await self.site.known(self.owner_id)
        assert (row.state, row.active_operation_id) == (InstallState.HEALTHY, None)
        assert row.current_version_id == row.desired_version_id
        app = await self.site.find(self.owner_id, "deployments/app")
        assert app is not None
        container = app["spec"]["template"]["spec"]["containers"][0]
        environment = {one["name"]: one for one in container["env"]}
        assert environment["GREETING"]["value"] == greeting
        render = await self.site.current_render(self.owner_id)
        assert render.state is RenderState.DEPLOYED
        await self._verify_secrets(greeting, environment["PASSWORD"], render)
        role = f"{_ROLES}/{install_namespace_of(self.owner_id)}-widgets"
        assert await self.site.ask(lambda client: client.find(role))
        assert await self.site.ask(lambda client: client.find(_rights_of(self.owner_id))) is None

    async def _verify_secrets(self, greeting: str, password: Object, render: RenderRow) -> None:
        use = SecretUse(render.values["password"]["$secret"]["id"])
        assert password["valueFrom"]["secretKeyRef"]["name"] == use.object_name
        own = await self.site.find(self.owner_id, "secrets/own")
        assert own is not None
        assert base64.b64decode(own["data"]["greeting"]).decode() == greeting
        space = install_namespace_of(self.owner_id)
        written = await self.site.ask(
            lambda client: client.list_all(
                f"/api/v1/namespaces/{space}/secrets", labelSelector="bulkhead.io/secret"
            )
        )
        assert [found["metadata"]["name"] for found in written] == [use.object_name]
        assert base64.b64decode(written[0]["data"]["value"]).decode() == f"secret {greeting}"
        with self.platform.servers.administrator() as administrator:
            references = administrator.execute(
                "SELECT secret_id FROM secret_references WHERE consumer_id = %s", (self.owner_id,)
            ).fetchall()
        assert references == [(use.secret_id,)]

    async def _approve(self, operation: InstallOperation) -> None:
        """Approve whatever the operation waits for, as often as it does."""
        while True:
            await asyncio.sleep(0.1)
            row = await self.platform.operation(operation)
            if row.waiting_for == "approval":
                with contextlib.suppress(Exception):
                    await self.site.approve(operation)


class CreatingInstall(InstallScenario):
    """An install of everything that a chart may bring."""

    operation_type = OperationType.INSTALL_CREATE

    async def prepare(self) -> InstallOperation:
        return await self.site.plan_create(await publish_app(self.site), await self.values("hello"))

    async def verify_done(self) -> None:
        await self.verify_runs("hello")

    async def verify_undone(self) -> None:
        assert await self.site.remains(self.owner_id) == {}


class UpdatingInstall(InstallScenario):
    """Other values, with another secret, and a role that the chart did not have before."""

    operation_type = OperationType.INSTALL_RENDER

    async def prepare(self) -> InstallOperation:
        install = await self.deployed("hello")
        role = (
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n"
            "metadata: {name: {{ .Release.Name }}-more}\n"
            "rules: [{apiGroups: [''], resources: [nodes], verbs: [get]}]\n"
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n"
        )
        files = {"templates/app.yaml": _APP, "templates/more.yaml": role}
        version = await self.site.publish("with-crd", "1.1.0", files=files)
        return await self.site.plan_update(
            install, version.version_id, await self.values("good bye")
        )

    async def verify_done(self) -> None:
        await self.verify_runs("good bye")
        assert await self._more() == (True, True)

    async def verify_undone(self) -> None:
        await self.verify_runs("hello")
        assert await self._more() == (False, False)
        render = await self.site.render_of(self.operation)
        assert render.state is RenderState.FAILED
        kept = self.platform.openbao.installs.leftovers
        names = await asyncio.to_thread(kept, self.site.owner.workspace_id, self.owner_id)
        assert len([name for name in names if name.startswith("renders/")]) == 1

    async def _more(self) -> tuple[bool, bool]:
        role = f"{_ROLES}/{install_namespace_of(self.owner_id)}-more"
        found = await self.site.ask(lambda client: client.find(role))
        return found is not None, await self.site.find(self.owner_id, "configmaps/more") is not None


class RestoringInstall(UpdatingInstall):
    """The first render, after another one was deployed."""

    operation_type = OperationType.INSTALL_RESTORE

    async def prepare(self) -> InstallOperation:
        update = await super().prepare()
        first = await self.site.current_render(update.install_id)
        await self.site.start(OperationType.INSTALL_RENDER, update)
        await self.site.waiting(update, "approval")
        await self.site.approve(update)
        await self.platform.succeed(update)
        return await self.site.plan_update(
            update.install_id, first.package_version_id, first.values, restored_from=first.id
        )

    async def verify_done(self) -> None:
        await self.verify_runs("hello")
        assert await self._more() == (False, False)

    async def verify_undone(self) -> None:
        await self.verify_runs("good bye")
        assert await self._more() == (True, True)


class DeletingInstall(InstallScenario):
    """An install of everything that a chart may bring, that shall go; forward only."""

    operation_type = OperationType.INSTALL_DELETE

    async def prepare(self) -> InstallOperation:
        return await self.site.plan_delete(await self.deployed("hello"))

    async def verify_done(self) -> None:
        assert await self.site.remains(self.owner_id) == {}

    async def verify_undone(self) -> None:
        raise NotImplementedError


def _rights_of(install_id: str) -> str:
    return f"{_ROLES}/bulkhead:{install_namespace_of(install_id)}"
