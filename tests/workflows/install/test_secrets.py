"""Secrets in installs: written into one namespace, taken over by what runs there, and removed."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlmodel import select

from domain.install import INSTALL_CONSUMER, InstallState
from domain.names import install_namespace_of, workflow_id_of
from domain.operation import OperationState, OperationType, Step, StepStatus
from domain.secret_use import SecretUse
from infra.database.engine import Database, DatabaseRole
from infra.database.records.install_secret import InstallSecretRecords
from infra.database.records.operation import install_operation_of
from infra.database.tables import InstallSecretRow, OperationRow, SecretReferenceRow
from infra.installs.secret_consumers import SecretConsumers
from tests.durability import (
    cases_of,
    survives_repeats,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.workflows.conftest import Injected
from tests.workflows.install.site import Site
from tests.workflows.install.syncing import SyncingSecrets, a_pass, add_version, pods_of
from tests.workflows.secret.scenarios import Rotating
from tests.workflows.secret.steering import is_waiting, until

_DEPLOYMENT = "templates/deployment.yaml"

_BY_VOLUME = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: consumer}
spec:
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
      - name: consumer
        image: registry.k8s.io/pause:3.10.1
        volumeMounts: [{name: password, mountPath: /secrets}]
      volumes:
      - name: password
        secret: {secretName: {{ .Values.password | quote }}}
"""


@dataclass(frozen=True)
class Using:
    """A secret that rotates, in the workspace of the site's owner."""

    site: Site
    rotating: Rotating
    secret_id: str

    @property
    def use(self) -> SecretUse:
        return SecretUse(self.secret_id)

    @property
    def values(self) -> dict[str, Any]:
        return {"password": {"$secret": {"id": self.secret_id}}}

    async def carried(self, install_id: str) -> bytes | None:
        """Return what the Kubernetes Secret of an install has, None when there is none."""
        found = await self.site.find(install_id, f"secrets/{self.use.object_name}")
        return None if found is None else base64.b64decode(found["data"]["value"])

    async def current(self) -> bytes:
        """Return the newest version's value."""
        value = await self.rotating.value((await self.rotating.versions())[-1])
        assert value is not None
        return value.data

    async def reference(self, install_id: str) -> SecretReferenceRow | None:
        workspace = self.site.owner.workspace_id
        async with self.site.platform.api.workspace(workspace) as session:
            key = (workspace, self.secret_id, INSTALL_CONSUMER, install_id)
            return await session.get(SecretReferenceRow, key)

    async def rows(self, install_id: str) -> list[InstallSecretRow]:
        async with self.site.platform.api.workspace(self.site.owner.workspace_id) as session:
            query = select(InstallSecretRow).where(InstallSecretRow.install_id == install_id)
            return list(await session.exec(query))


@pytest_asyncio.fixture(loop_scope="session")
async def using(site: Site) -> AsyncIterator[Using]:
    rotating = Rotating(site.platform, site.owner)
    rotating.grace_seconds = 120
    yield Using(site, rotating, await rotating.make())
    rotating.close()


async def synced(site: Site, install_id: str) -> None:
    """Wait until the operation that takes versions over has succeeded."""
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        query = select(OperationRow).where(
            OperationRow.owner_id == install_id,
            OperationRow.type == OperationType.INSTALL_SYNC_SECRETS,
        )
        operation = install_operation_of((await session.exec(query)).one())
    await site.platform.succeed(operation)


@pytest.mark.parametrize("chart", ["secret-consumer", "web"])
async def test_secrets_are_written_where_the_values_refer_to_some(using: Using, chart: str) -> None:
    site, refers = using.site, chart == "secret-consumer"
    published = await site.publish(chart)
    operation = await site.plan_create(published, using.values if refers else {})
    await site.start(OperationType.INSTALL_CREATE, operation)
    try:
        await site.platform.succeed(operation)
        steps = {step.name: step.status for step in await site.platform.steps(operation)}
        assert (steps[Step.SYNC_SECRETS] is StepStatus.COMPLETED) is refers
        assert steps[Step.APPLY_RELEASE] is StepStatus.COMPLETED
        assert (await site.known(operation.install_id)).state is InstallState.HEALTHY
    finally:
        await site.forget(operation.install_id)


async def test_a_rotation_waits_until_the_installs_pods_work_with_the_new_value(
    using: Using,
) -> None:
    site, rotating = using.site, using.rotating
    install = await site.installed(await site.publish("secret-consumer"), using.values)
    try:
        assert rotating.first is not None
        assert await using.carried(install) == rotating.first.data
        before, reference = await pods_of(site, install), await using.reference(install)
        assert reference is not None
        assert (reference.acknowledges, reference.acknowledged_number) == (True, 1)
        # What was there before the pods needs nobody to take it over.
        assert await a_pass(site) == 0
        await rotating.plan(using.secret_id)
        await rotating.start()
        await until(lambda: is_waiting(rotating))
        assert await a_pass(site) == 1
        await synced(site, install)
        await site.platform.succeed(rotating.operation)
        assert await using.carried(install) == await using.current() != rotating.first.data
        assert before.isdisjoint(await pods_of(site, install))
        response = (await site.platform.operation(rotating.operation)).response
        assert response is not None
        assert response["unacknowledged_by"] == []
        assert await a_pass(site) == 0
        await _nothing_carries(using, install, [rotating.first.data, await using.current()])
        await site.platform.succeed(await site.delete(install))
        assert await site.remains(install) == {}
    finally:
        await site.forget(install)


async def _nothing_carries(using: Using, install_id: str, values: list[bytes]) -> None:
    """Look for values wherever they must not be."""
    site = using.site
    places: dict[str, str] = {"rows": await asyncio.to_thread(_all_rows, site)}
    space = install_namespace_of(install_id)
    secrets = await site.ask(lambda client: client.list_all(f"/api/v1/namespaces/{space}/secrets"))
    for secret in secrets:
        if secret["type"] == "helm.sh/release.v1":
            name = secret["metadata"]["name"]
            release = base64.b64decode(base64.b64decode(secret["data"]["release"]))
            places[name] = gzip.decompress(release).decode()
    assert len(places) > 1
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        query = select(OperationRow).where(OperationRow.owner_id == install_id)
        operations = list(await session.exec(query))
    for row in operations:
        handle = site.platform.client.get_workflow_handle(
            workflow_id_of(row.type, row.owner_id, row.id)
        )
        # With the payloads opened.
        places[row.type] = (await handle.fetch_history()).to_json()
    home = site.platform.servers.home
    for path in home.rglob("*.log"):
        places[str(path)] = path.read_text(errors="replace")
    for value in values:
        for text in (value.decode(), base64.b64encode(value).decode()):
            assert [name for name, content in places.items() if text in content] == []


def _all_rows(site: Site) -> str:
    with site.platform.servers.administrator() as administrator:
        tables = administrator.execute(
            "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        return "\n".join(
            str(row)
            for (table,) in tables
            for row in administrator.execute(f"SELECT t::text FROM {table} t")  # noqa: S608 - all of them
        )


@pytest.mark.full
async def test_what_is_not_referred_to_any_more_is_removed(using: Using) -> None:
    site = using.site
    chart = await site.publish("secret-consumer")
    install = await site.installed(chart, using.values)
    try:
        assert await using.carried(install) is not None
        await site.platform.succeed(await site.update(install, chart, {"password": "none"}))
        assert await using.carried(install) is None
        assert await using.rows(install) == []
        assert await using.reference(install) is None
    finally:
        await site.forget(install)


@pytest.mark.full
async def test_what_is_deployed_takes_versions_over_until_other_values_are_rendered(
    using: Using,
) -> None:
    site = using.site
    install = await site.installed(await site.publish("secret-consumer"), using.values)
    try:
        # As a PATCH does, which is for the next render.
        with site.platform.servers.administrator() as administrator:
            administrator.execute("UPDATE installs SET values = '{}' WHERE id = %s", (install,))
        await add_version(site, using.secret_id, b"the second value")
        await a_pass(site)
        await synced(site, install)
        assert await using.carried(install) == b"the second value"
        reference = await using.reference(install)
        assert reference is not None
        assert reference.acknowledged_number == 2
        assert (await site.known(install)).values == {}
    finally:
        await site.forget(install)


@pytest.mark.full
async def test_a_secret_that_cannot_be_read_fails_the_install_and_leaves_nothing(
    using: Using,
) -> None:
    site = using.site
    chart = await site.publish("secret-consumer")
    values = {"password": {"$secret": {"id": using.secret_id, "alias": "beta"}}}
    operation = await site.create(chart, values)
    assert await site.platform.end_of(operation, 60) is OperationState.FAILED
    error = (await site.platform.operation(operation)).error
    assert error is not None
    assert f"the secret {using.secret_id} with the alias beta" in error["message"]
    assert await using.reference(operation.install_id) is None


@pytest.mark.full
async def test_what_is_mounted_is_waited_for_and_nothing_is_restarted(using: Using) -> None:
    site = using.site
    chart = await site.publish("secret-consumer", files={_DEPLOYMENT: _BY_VOLUME})
    operation = await site.create(chart, using.values)
    await site.platform.succeed(operation)
    install = operation.install_id
    database = Database(site.platform.servers.database, DatabaseRole.WORKER)
    try:
        before = await pods_of(site, install)
        records = InstallSecretRecords(database)
        consumers = SecretConsumers(site.clusters, refreshed_within=timedelta(seconds=3))
        # API servers count in whole seconds: pods of the same second might have come before.
        _written(site, install, "synced_at - interval '1 second'")
        assert await consumers.look(operation, await records.objects_of(operation)) == []
        # The value changed after the pods came.
        _written(site, install, "now() + interval '1 second'")
        waiting = await consumers.look(operation, await records.objects_of(operation))
        assert waiting == ["Deployment consumer: kubelets bring its volumes up to date"]

        async def is_taken_over() -> bool:
            return not await consumers.look(operation, await records.objects_of(operation))

        await until(is_taken_over)
        assert await pods_of(site, install) == before
    finally:
        await database.close()
        await site.forget(install)


def _written(site: Site, install_id: str, moment: str) -> None:
    """Have the values of an install been written at another moment, an expression of SQL."""
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            f"UPDATE install_secrets SET synced_at = {moment} WHERE install_id = %s",  # noqa: S608 - of this file
            (install_id,),
        )


@pytest.mark.full
async def test_running_every_activity_twice_changes_nothing(injected: Injected, site: Site) -> None:
    await survives_repeats(SyncingSecrets(site), injected.injector)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_failure_at_every_step_leaves_the_install_as_healthy_as_it_was(
    injected: Injected, site: Site
) -> None:
    scenario = SyncingSecrets(site)
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_cancel_at_every_step_leaves_the_install_as_healthy_as_it_was(
    injected: Injected, site: Site
) -> None:
    scenario = SyncingSecrets(site)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))
