"""Rollouts that really deploy: charts, helm, and a Kubernetes API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import Component, Leaf
from domain.identifiers import Prefix, new_id
from domain.package import ProductState
from domain.rollout import TERMINAL, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Selector, Strategy
from infra.database.queries.install import find_rollout_preview
from infra.database.records import rollout_requests
from infra.database.records.rollout_rows import lock_rollout
from infra.database.tables import OperationRow, ProductRow, RolloutRow, RolloutTargetRow
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.temporal.rollouts import wake_rollout
from tests.processes import suspended
from tests.workflows.install.site import Published, Site
from tests.workflows.install.test_cluster import pids_of

_BROKEN = {"templates/broken.yaml": "{{ fail `this version is broken` }}"}
_ADDED = {
    "templates/added.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: added}\ndata: {a: b}"
}
_SICK = {
    "templates/sick.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: sick}\n"
    "spec: {containers: [{name: sick, image: none, args: [crash]}]}"
}
_STRATEGY = Strategy(canary=1, bake_seconds=0)
_AT_ONCE = Strategy(canary=0, bake_seconds=0, concurrency=2)


@dataclass
class _Vendor:
    """A vendor that was given the right to move two installs."""

    site: Site
    product_id: str
    installs: list[str]

    async def roll_out(
        self, published: Published, strategy: Strategy, *, plan_only: bool = False
    ) -> str:
        """Ask for a rollout, as the API does; return its id."""
        async with self._session() as session:
            row = await rollout_requests.create_rollout(
                session,
                self.site.vendor,
                product_id=self.product_id,
                package_version_id=published.version_id,
                selector=Selector(),
                strategy=strategy,
                plan_only=plan_only,
            )
        await self._wake(row.id)
        return row.id

    async def approve(self, rollout_id: str, digest: str) -> None:
        """Approve a plan."""
        async with self._session() as session:
            row = await lock_rollout(session, rollout_id)
            await rollout_requests.approve(session, row, digest, self.site.vendor)
        await self._wake(rollout_id)

    async def take_back(self, rollout_id: str) -> None:
        """Ask for a rollback."""
        async with self._session() as session:
            row = await lock_rollout(session, rollout_id)
            await rollout_requests.request_rollback(session, row, self.site.vendor)
        await self._wake(rollout_id)

    async def until(
        self, rollout_id: str, *states: RolloutState, baking: bool = False
    ) -> RolloutRow:
        """Wait until a rollout is in a state, or has ended, or bakes."""
        async with asyncio.timeout(90):
            while True:
                row = await self.row(rollout_id)
                if row.state in TERMINAL | set(states) or (baking and row.bake_until is not None):
                    return row
                await asyncio.sleep(0.2)

    async def row(self, rollout_id: str) -> RolloutRow:
        """Read a rollout."""
        async with self._session() as session:
            return await session.get_one(RolloutRow, (self.site.vendor.workspace_id, rollout_id))

    async def failure(self, rollout_id: str) -> str:
        """Return why the one target failed that did."""
        query = select(RolloutTargetRow.last_error).where(
            RolloutTargetRow.rollout_id == rollout_id,
            RolloutTargetRow.state == TargetState.FAILED,
        )
        async with self._session() as session:
            error = (await session.exec(query)).one()
        assert error is not None
        return str(error["message"])

    async def versions(self) -> set[str | None]:
        """Return what the installs have."""
        return {(await self.site.known(each)).current_version_id for each in self.installs}

    async def seen(self, install_id: str, *, at: str) -> None:
        """Have an install be seen at a moment, as its observer notes it."""
        with self.site.platform.servers.administrator() as administrator:
            administrator.execute(
                f"UPDATE installs SET observed_at = {at} WHERE id = %s",  # noqa: S608 - ours
                (install_id,),
            )

    async def look_again(self, rollout_id: str) -> None:
        """Have a rollout look now at what it would look at within half a minute."""
        with self.site.platform.servers.administrator() as administrator:
            administrator.execute(
                "UPDATE rollout_targets SET next_try_at = now()"
                " WHERE rollout_id = %s AND next_try_at > now()",
                (rollout_id,),
            )
        await self._wake(rollout_id)

    async def waits_for(self, rollout_id: str, install_id: str) -> str:
        """Return what a target waits for, or its operation."""
        key = (self.site.vendor.workspace_id, rollout_id, install_id)
        async with self._session() as session:
            target = await session.get_one(RolloutTargetRow, key)
        if target.operation_id is None:
            return str(target.waiting_for)
        owner = self.site.owner.workspace_id
        async with self.site.platform.api.workspace(owner) as session:
            operation = await session.get_one(OperationRow, (owner, target.operation_id))
        return str(operation.waiting_for)

    async def until_waiting(self, rollout_id: str, install_id: str, what: str) -> None:
        """Wait until a target, or its operation, waits for something."""
        async with asyncio.timeout(60):
            while True:
                if what in await self.waits_for(rollout_id, install_id):
                    return
                await asyncio.sleep(0.2)

    def _session(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self.site.platform.api.workspace(self.site.vendor.workspace_id)

    async def _wake(self, rollout_id: str) -> None:
        workspace_id = self.site.vendor.workspace_id
        await wake_rollout(self.site.platform.client, workspace_id, rollout_id)


async def _vendor(
    site: Site, published: Published, *others: Site, values: dict[str, Any] | None = None
) -> _Vendor:
    product_id = new_id(Prefix.PRODUCT)
    async with site.platform.api.workspace(site.vendor.workspace_id) as session:
        session.add(
            ProductRow(
                workspace_id=site.vendor.workspace_id,
                id=product_id,
                package_id=published.package_id,
                name="web",
                version_pin={"kind": "latest"},
                state=ProductState.ACTIVE,
            )
        )
    wanted = values or {"greeting": "hello"}
    installs = [await each.installed(published, wanted) for each in (site, *(others or [site]))]
    with site.platform.servers.administrator() as administrator:
        for install in installs:
            # The observer that notes this runs in a worker, and not in a test's.
            administrator.execute(
                "UPDATE installs SET product_id = %s, observed_at = now() + interval '1 day'"
                " WHERE id = %s",
                (product_id, install),
            )
            administrator.execute(
                "INSERT INTO grants (workspace_id, id, install_id, cluster_id, region_id,"
                " vendor_workspace_id, product_id, labels, channel, consent, health, version)"
                " SELECT workspace_id, %s, id, cluster_id, region_id, %s, product_id, labels,"
                " channel, 'automatic', health, 1 FROM installs WHERE id = %s",
                (new_id(Prefix.GRANT), site.vendor.workspace_id, install),
            )
    return _Vendor(site, product_id, installs)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_rollout_deploys_what_was_planned_and_approved_and_can_be_taken_back(
    site: Site,
) -> None:
    first = await site.publish("web", "1.0.0")
    vendor = await _vendor(site, first)
    try:
        second = await site.publish("web", "2.0.0", files=_ADDED)
        rollout = await vendor.roll_out(
            second, Strategy(canary=0, bake_seconds=3600), plan_only=True
        )
        planned = await vendor.until(rollout, RolloutState.PLANNED)
        assert planned.plan_digest is not None
        assert await vendor.versions() == {first.version_id}
        for install in vendor.installs:
            version, changes = await _planned_for(site, install)
            assert version == second.version_id
            assert "added" in [change for key, change in changes.items() if "ConfigMap" in key]
        await vendor.approve(rollout, planned.plan_digest)
        await vendor.until(rollout, baking=True)
        assert await vendor.versions() == {second.version_id}
        for install in vendor.installs:
            assert await site.find(install, "configmaps/added") is not None
        await vendor.take_back(rollout)
        row = await vendor.until(rollout)
        assert (row.state, row.counts) == (
            RolloutState.ROLLED_BACK,
            {TargetState.ROLLED_BACK: 2},
        )
        assert await vendor.versions() == {first.version_id}
        for install in vendor.installs:
            assert await site.find(install, "configmaps/added") is None
    finally:
        await asyncio.gather(*(site.forget(each) for each in vendor.installs))


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_broken_chart_is_stopped_at_the_canary_and_a_good_one_reaches_all(
    site: Site,
) -> None:
    first = await site.publish("web", "1.0.0")
    vendor = await _vendor(site, first)
    try:
        broken = await site.publish("web", "1.1.0", files=_BROKEN)
        row = await vendor.until(await vendor.roll_out(broken, _STRATEGY))
        assert row.state is RolloutState.FAILED
        assert row.counts == {TargetState.FAILED: 1, TargetState.SKIPPED: 1}
        assert await vendor.versions() == {first.version_id}
        said = "Its chart could not be rendered with the customer's values ("
        assert (await vendor.failure(row.id)).startswith(said)
        sick = await site.publish("web", "1.1.1", files=_SICK)
        row = await vendor.until(await vendor.roll_out(sick, _STRATEGY))
        assert await vendor.failure(row.id) == (
            "The new version did not become healthy: Pod is Degraded (CrashLoopBackOff). "
            "It has what it had before."
        )
        good = await site.publish("web", "1.2.0")
        row = await vendor.until(await vendor.roll_out(good, _STRATEGY))
        assert row.state is RolloutState.SUCCEEDED, row.reason
        assert await vendor.versions() == {good.version_id}
        for install in vendor.installs:
            assert await site.find(install, "deployments/web") is not None
    finally:
        await asyncio.gather(*(site.forget(each) for each in vendor.installs))


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_rollout_goes_on_while_a_cluster_does_not_answer_and_comes_back_for_it(
    site: Site,
) -> None:
    first = await site.publish("web", "1.0.0")
    async with _other_cluster(site) as other:
        # There is no node: what is deployed there has no pods.
        vendor = await _vendor(site, first, other, values={"replicas": 0})
        near, far = vendor.installs
        for number, outage in enumerate((_down, _hung, _store_hung, _expired), 2):
            version = await site.publish("web", f"{number}.0.0", files=_numbered(number))
            async with outage(other):
                rollout = await vendor.roll_out(version, _AT_ONCE)
                await _until_moved(vendor, near, version)
                await vendor.until_waiting(rollout, far, "API server")
                assert (await vendor.row(rollout)).state is RolloutState.RUNNING
            await _ends_well(vendor, other, rollout, version, number)
        # Known to be away before its turn comes, it has none until it is seen again.
        version = await site.publish("web", "6.0.0", files=_numbered(6))
        async with _down(other):
            await vendor.seen(far, at="NULL")
            rollout = await vendor.roll_out(version, _AT_ONCE)
            await _until_moved(vendor, near, version)
            await vendor.until_waiting(rollout, far, Obstacle.OFFLINE)
        await vendor.seen(far, at="now() + interval '1 day'")
        await vendor.look_again(rollout)
        await _ends_well(vendor, other, rollout, version, 6)
        for place, install in ((site, near), (other, far)):
            await site.platform.succeed(await place.delete(install))
            assert await place.remains(install) == {}


async def _planned_for(site: Site, install_id: str) -> tuple[str, dict[str, str]]:
    """Return the version that a rollout planned for an install, and what becomes of objects."""
    async with site.platform.api.workspace(site.owner.workspace_id) as session:
        found = await find_rollout_preview(session, install_id)
    assert found is not None
    return found.package_version_id, {
        change["key"]: change["change"] for change in found.plan["changes"]
    }


async def _until_moved(vendor: _Vendor, install_id: str, version: Published) -> None:
    async with asyncio.timeout(60):
        while True:
            if (await vendor.site.known(install_id)).current_version_id == version.version_id:
                return
            await asyncio.sleep(0.2)


async def _ends_well(
    vendor: _Vendor, other: Site, rollout: str, version: Published, number: int
) -> None:
    row = await vendor.until(rollout)
    assert (row.state, row.counts) == (RolloutState.SUCCEEDED, {TargetState.SUCCEEDED: 2})
    assert await vendor.versions() == {version.version_id}
    assert await vendor.waits_for(rollout, vendor.installs[1]) == "None"
    found = await other.find(vendor.installs[1], "configmaps/number")
    assert found is not None
    assert found["data"] == {"number": str(number)}


def _numbered(number: int) -> dict[str, str]:
    return {
        "templates/number.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: number}\n"
        f"data: {{number: '{number}'}}"
    }


@asynccontextmanager
async def _other_cluster(site: Site) -> AsyncIterator[Site]:
    requested = await site.platform.request_cluster(site.owner)
    await site.platform.succeed(requested)
    try:
        yield site.on(requested.cluster)
    finally:
        await site.platform.delete(requested.cluster, site.owner)


@asynccontextmanager
async def _down(site: Site) -> AsyncIterator[None]:
    """Nobody listens where the API server was."""
    backend = site.platform.backend
    await asyncio.to_thread(backend.stop, site.cluster, lambda *_: None)
    try:
        yield
    finally:
        await asyncio.to_thread(backend.start, site.cluster)
        await asyncio.to_thread(backend.wait_until_ready, site.cluster, lambda *_: None)


@asynccontextmanager
async def _hung(site: Site) -> AsyncIterator[None]:
    """The API server takes connections and answers nothing."""
    with suspended(*await pids_of(site, Component.API_SERVER)):
        yield


@asynccontextmanager
async def _store_hung(site: Site) -> AsyncIterator[None]:
    """The API server answers late, and with 5xx: its store does not answer."""
    with suspended(*await pids_of(site, Component.ETCD)):
        yield


@asynccontextmanager
async def _expired(site: Site) -> AsyncIterator[None]:
    """The API server's certificate has ended."""
    backend, openbao = site.platform.backend, site.platform.openbao
    layout = backend._placement.layout_of(site.cluster)  # noqa: SLF001 - where its files are
    file = layout.certificate(Leaf.API_SERVER)
    names = x509.load_pem_x509_certificate(file.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    spec = LeafSpec(
        authority=Authority.KUBERNETES,
        common_name="kube-apiserver",
        usages=("ServerAuth",),
        names=tuple(str(name.value) for name in names.value),
    )

    def end() -> None:
        key, certificate = make_leaf(
            lambda request, usages: openbao.sign(
                site.cluster, spec.authority, request, usages=usages, lifetime_seconds=1
            ),
            spec,
        )
        layout.key(Leaf.API_SERVER).write_bytes(key)
        file.write_bytes(certificate)

    await asyncio.to_thread(end)
    await asyncio.sleep(3)
    try:
        yield
    finally:
        await asyncio.to_thread(backend.renew_leaves, site.cluster)
