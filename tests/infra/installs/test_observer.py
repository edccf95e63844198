"""What an observer writes of installs on a real cluster, and when."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.cluster import ClusterState, Component
from domain.errors import BulkheadError, Reason
from domain.install import Health, InstallState, Sync
from domain.names import install_namespace_of
from infra.database.tables import ClusterRow, InstallRow
from infra.installs.observations import Observations
from infra.kubernetes.client import KubernetesClient, Object
from tests.infra.installs.objects import CANARY, config_map, deployment, path_of, secret
from tests.infra.installs.world import World
from tests.processes import suspended


async def seen(world: World, install_id: str, holds: Callable[[InstallRow], bool]) -> InstallRow:
    """Look until something is so, and by the right clock: controllers need a moment, or more."""
    observer = world.observer()
    async with asyncio.timeout(60):
        while True:
            world.now = datetime.now(UTC)
            await observer.look_at_all()
            row = await world.install(install_id)
            if holds(row):
                return row
            await asyncio.sleep(0.2)


async def until(world: World, path: str, holds: Callable[[Object], Any]) -> None:
    """Wait until a live object is so."""
    async with asyncio.timeout(60):
        while not holds(await world.clusters.ask(world.cluster, lambda client: client.get(path))):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)


async def test_what_is_seen_of_an_install_is_in_its_row_and_in_the_grant(world: World) -> None:
    install = await world.deploy(deployment(), config_map(a=CANARY), secret(password=CANARY))
    grant = await world.grant(install)
    row = await seen(world, install, lambda row: row.health is Health.HEALTHY)
    assert (row.sync, row.state, row.health_message) == (Sync.SYNCED, InstallState.HEALTHY, None)
    assert row.observed_at == world.now
    assert row.resources is not None
    assert {(one["kind"], one["health"]["status"]) for one in row.resources} == {
        ("Deployment", Health.HEALTHY),
        ("ConfigMap", Health.HEALTHY),
        ("Secret", Health.HEALTHY),
    }
    assert CANARY not in json.dumps(row.resources)
    known = await world.granted(grant)
    assert (known.health, known.observed_at) == (Health.HEALTHY, world.now)
    assert known.current_version_id == row.current_version_id


async def test_a_missing_object_counts_once_it_lasts_and_recovery_is_seen(world: World) -> None:
    install = await world.deploy(config_map("one"), config_map("two"))
    observer = world.observer()
    await world.watch(observer, seconds=10)
    path = path_of(install, "configmaps", "two")
    await world.clusters.ask(world.cluster, lambda client: client.delete(path))
    await world.watch(observer, seconds=10)
    row = await world.install(install)
    assert (row.health, row.state) == (Health.HEALTHY, InstallState.HEALTHY)
    assert row.sync is Sync.OUT_OF_SYNC
    await world.watch(observer, seconds=30)
    row = await world.install(install)
    assert (row.health, row.state) == (Health.MISSING, InstallState.DEGRADED)
    assert row.health_message == "ConfigMap two: It is not in the cluster."
    body = config_map("two")
    await world.clusters.ask(world.cluster, lambda client: client.apply(path, body))
    await world.watch(observer, seconds=10)
    row = await world.install(install)
    assert (row.health, row.state, row.sync) == (
        Health.HEALTHY,
        InstallState.HEALTHY,
        Sync.SYNCED,
    )
    assert row.health_message is None


async def test_a_rollout_that_makes_no_progress_is_degraded_with_its_reason(world: World) -> None:
    patient = await world.deploy(deployment(replicas=1))
    row = await seen(world, patient, lambda row: row.health is Health.PROGRESSING)
    assert "Deployment web: " in (row.health_message or "")
    install = await world.deploy(deployment(replicas=1, deadline=1))

    def is_overdue(live: Object) -> bool:
        conditions = (live.get("status") or {}).get("conditions") or []
        return any(one["reason"] == "ProgressDeadlineExceeded" for one in conditions)

    await until(world, path_of(install, "deployments", "web"), is_overdue)
    await world.watch(world.observer(), seconds=40)
    row = await world.install(install)
    assert (row.health, row.state) == (Health.DEGRADED, InstallState.DEGRADED)
    assert "progress deadline is exceeded" in (row.health_message or "")


async def test_a_row_is_written_when_something_changed_and_each_minute(world: World) -> None:
    install = await world.deploy(config_map())
    observer = world.observer()
    await world.watch(observer, seconds=0)
    before = await world.version_of_row(install)
    await world.watch(observer, seconds=40)
    assert await world.version_of_row(install) == before
    await world.watch(observer, seconds=30)
    assert await world.version_of_row(install) != before


async def test_an_install_that_an_operation_moves_is_left_alone(world: World) -> None:
    install = await world.deploy(config_map())
    await world.change(install, active_operation_id="op_x", state=InstallState.RENDERING)
    before = await world.version_of_row(install)
    await world.watch(world.observer(), seconds=0)
    assert await world.version_of_row(install) == before


async def test_a_look_that_an_operation_overtook_is_thrown_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = await world.deploy(config_map())
    ask = world.clusters.ask

    async def ask_and_begin(*arguments: Any) -> Any:  # noqa: ANN401 - whatever is asked
        found = await ask(*arguments)
        await world.change(install, active_operation_id="op_x")
        return found

    monkeypatch.setattr(world.clusters, "ask", ask_and_begin)
    await world.watch(world.observer(), seconds=0)
    row = await world.install(install)
    assert (row.health, row.observed_at) == (Health.UNKNOWN, None)


async def test_what_nobody_can_look_at_is_unknown_and_not_degraded(world: World) -> None:
    install = await world.deploy(config_map())
    grant = await world.grant(install)
    observer = world.observer()
    await world.watch(observer, seconds=0)
    last = (await world.install(install)).observed_at
    await asyncio.to_thread(world.host.stop, world.cluster)
    try:
        await world.watch(observer, seconds=20)
        row = await world.install(install)
        assert (row.health, row.observed_at) == (Health.HEALTHY, last)
        await world.watch(observer, seconds=600, step=60)
        row = await world.install(install)
        assert (row.health, row.state) == (Health.UNKNOWN, InstallState.HEALTHY)
        assert (row.sync, row.observed_at) == (Sync.UNKNOWN, last)
        assert "cannot answer" in (row.health_message or "")
        assert (await world.granted(grant)).health is Health.UNKNOWN
    finally:
        await asyncio.to_thread(world.host.start, world.cluster)
    await world.watch(observer, seconds=0)
    row = await world.install(install)
    assert (row.health, row.sync) == (Health.HEALTHY, Sync.SYNCED)


async def test_a_kind_whose_own_server_is_down_is_unknown_and_the_install_is_not_offline(
    world: World,
) -> None:
    group = "down.bulkhead.test"
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1.{group}"},
        "spec": {
            "group": group,
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": "default", "name": "nobody"},
        },
    }
    path = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{group}"

    def is_out_of_reach(client: KubernetesClient) -> bool:
        try:
            client.get(f"/apis/{group}/v1")
        except BulkheadError as error:
            return error.reason is Reason.DEPENDENCY_UNAVAILABLE
        return False

    install = await world.deploy(config_map())
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "one"}}
    await world.add_to_render(install, widget)
    await world.clusters.ask(world.cluster, lambda client: client.apply(path, api))
    try:
        # Until the API server has taken that up, it knows of no such kind.
        async with asyncio.timeout(60):
            while not await world.clusters.ask(world.cluster, is_out_of_reach):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await world.watch(world.observer(), seconds=40)
    finally:
        await world.clusters.ask(world.cluster, lambda client: client.delete(path))
    row = await world.install(install)
    assert row.health is Health.UNKNOWN
    assert (row.health_message or "").startswith("Widget one: ")
    assert row.sync is Sync.UNKNOWN
    assert row.observed_at is not None
    assert row.resources is not None
    found = [(one["kind"], one["status"], one["health"]["status"]) for one in row.resources]
    assert found == [
        ("ConfigMap", Sync.SYNCED, Health.HEALTHY),
        ("Widget", Sync.UNKNOWN, Health.UNKNOWN),
    ]


@pytest.mark.full
async def test_an_api_server_that_hangs_keeps_an_observer_waiting_once(world: World) -> None:
    installs = [await world.deploy(config_map()) for _ in range(3)]
    observer = world.observer()
    await world.watch(observer, seconds=0)
    statuses = await asyncio.to_thread(world.host.backend.describe, world.cluster)
    pid = next(one.pid for one in statuses.components if one.component is Component.API_SERVER)
    assert pid is not None
    with suspended(pid):
        began = time.monotonic()
        await observer.look_at_all()
    assert time.monotonic() - began < 12
    for install in installs:
        assert (await world.install(install)).health is Health.HEALTHY


async def test_a_cluster_that_sleeps_is_not_asked(world: World) -> None:
    install = await world.deploy(config_map())
    observer = world.observer()
    await world.watch(observer, seconds=0)
    await _set_cluster(world, ClusterState.SUSPENDED)
    try:
        await world.watch(observer, seconds=40)
    finally:
        await _set_cluster(world, ClusterState.ACTIVE)
    row = await world.install(install)
    assert row.health is Health.UNKNOWN
    assert row.health_message == "Its cluster is suspended, so that nobody can look."


async def test_a_cluster_is_asked_by_kind_and_not_by_object(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = await world.deploy(*(config_map(f"map-{number}") for number in range(20)))
    observer = world.observer()
    await world.watch(observer, seconds=0)
    asked: list[str] = []
    send = KubernetesClient._send  # noqa: SLF001 - counted, not replaced

    def count(self: KubernetesClient, method: str, path: str, *more: Any) -> Any:  # noqa: ANN401 - passed on
        asked.append(path)
        return send(self, method, path, *more)

    monkeypatch.setattr(KubernetesClient, "_send", count)
    await world.watch(observer, seconds=0)
    space = install_namespace_of(install)
    assert [path for path in asked if space in path] == [f"/api/v1/namespaces/{space}/configmaps"]


async def _set_cluster(world: World, state: ClusterState) -> None:
    async with world.database.workspace(world.workspace) as session:
        row = await session.get_one(ClusterRow, (world.workspace, world.cluster.cluster_id))
        row.state = state
        session.add(row)


async def test_an_install_whose_row_cannot_be_read_ends_the_care_for_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable, other = [await world.deploy(config_map()) for _ in range(2)]
    read = Observations.read

    async def read_or_fail(self: Observations, workspace: str, ids: Sequence[str]) -> Any:  # noqa: ANN401 - what it returns
        if unreadable in ids:
            message = "of a later version"
            raise LookupError(message)
        return await read(self, workspace, ids)

    monkeypatch.setattr(Observations, "read", read_or_fail)
    await world.watch(world.observer(), seconds=0)
    assert (await world.install(other)).health is Health.HEALTHY
    assert (await world.install(unreadable)).health is Health.UNKNOWN
