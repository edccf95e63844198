"""Rollouts that really deploy: charts, helm, and a Kubernetes API."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.identifiers import Prefix, new_id
from domain.package import ProductState
from domain.rollout import TERMINAL, RolloutState, TargetState
from domain.rollout_strategy import Selector, Strategy
from infra.database.records import rollout_requests
from infra.database.records.rollout_rows import lock_rollout
from infra.database.tables import ProductRow, RolloutRow, RolloutTargetRow
from infra.temporal.rollouts import wake_rollout
from tests.workflows.install.site import Published, Site

_BROKEN = {"templates/broken.yaml": "{{ fail `this version is broken` }}"}
_ADDED = {
    "templates/added.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: added}\ndata: {a: b}"
}
_SICK = {
    "templates/sick.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: sick}\n"
    "spec: {containers: [{name: sick, image: none, args: [crash]}]}"
}
_STRATEGY = Strategy(canary=1, bake_seconds=0)


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
                async with self._session() as session:
                    key = (self.site.vendor.workspace_id, rollout_id)
                    row = await session.get_one(RolloutRow, key)
                if row.state in TERMINAL | set(states) or (baking and row.bake_until is not None):
                    return row
                await asyncio.sleep(0.2)

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

    def _session(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self.site.platform.api.workspace(self.site.vendor.workspace_id)

    async def _wake(self, rollout_id: str) -> None:
        workspace_id = self.site.vendor.workspace_id
        await wake_rollout(self.site.platform.client, workspace_id, rollout_id)


async def _vendor(site: Site, published: Published) -> _Vendor:
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
    installs = [await site.installed(published, {"greeting": "hello"}) for _ in range(2)]
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
            "The new version did not become healthy: Pod sick is Degraded (CrashLoopBackOff). "
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
