"""Live objects against what was rendered: found, told without secrets, and corrected on wish."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from domain.install import DriftState, Health, RenderState, Sync
from domain.install_drift import CORRECTION_MESSAGE, InstallDriftRequest, ObjectDrift
from domain.operation import OperationType
from domain.owned_operation import InstallOperation, TypedOperation
from domain.rollout import StopScope
from infra.database.records.install import InstallRecords
from infra.database.records.install_secret import InstallSecretRecords
from infra.database.tables import EmergencyStopRow, OperationRow, RenderRow
from infra.installs.drift import find_drift
from infra.kubernetes.client import KubernetesClient
from tests.infra.installs.objects import CANARY, config_map, deployment, path_of, secret
from tests.infra.installs.world import World

OPEN, RESOLVED, CORRECTED = DriftState.OPEN, DriftState.RESOLVED, DriftState.CORRECTED


def request_of(world: World, install_id: str) -> InstallDriftRequest:
    return InstallDriftRequest(
        workspace_id=world.workspace, install_id=install_id, host=world.cluster.host
    )


async def compare(world: World, install_id: str) -> str:
    """Compare an install and write what differs, as the activity does; return its render."""
    request = request_of(world, install_id)
    subject = await world.drift.subject_of(request)
    assert subject is not None
    key = world.host.openbao.installs.render_key(world.workspace, install_id)

    def work(client: KubernetesClient) -> list[ObjectDrift]:
        return find_drift(client, install_id, subject.manifest, key)

    found = await world.clusters.ask(world.cluster, work)
    assert await world.drift.write(request, subject.render_id, found)
    return subject.render_id


async def correction(world: World, install_id: str) -> TypedOperation | None:
    render_id = (await world.install(install_id)).current_render_id
    return await world.drift.plan_correction(request_of(world, install_id), render_id or "")


async def patch(world: World, path: str, body: dict[str, Any]) -> None:
    await world.clusters.ask(world.cluster, lambda client: client.patch(path, body))


async def test_objects_that_are_as_rendered_have_not_drifted(world: World) -> None:
    install = await world.deploy(deployment(), config_map(a="1"), secret(password=CANARY))
    await compare(world, install)
    assert await world.findings(install) == {}


async def test_what_others_add_to_an_object_is_no_drift(world: World) -> None:
    install = await world.deploy(config_map(a="1"), secret(password=CANARY))
    for plural, name in (("configmaps", "settings"), ("secrets", "login")):
        path = path_of(install, plural, name)
        await patch(world, path, {"metadata": {"labels": {"team": "blue"}}})
    await patch(world, path_of(install, "secrets", "login"), {"stringData": {"more": "x"}})
    await compare(world, install)
    assert await world.findings(install) == {}


async def test_changes_by_hand_are_found_with_their_paths_and_without_secrets(world: World) -> None:
    install = await world.deploy(
        deployment(), config_map(a="1"), config_map("gone"), secret(password=CANARY, user="me")
    )
    await patch(world, path_of(install, "configmaps", "settings"), {"data": {"a": "2"}})
    await patch(
        world,
        path_of(install, "deployments", "web"),
        {"spec": {"minReadySeconds": 5, "replicas": 1}},
    )
    changed: dict[str, Any] = {
        "data": {"password": base64.b64encode(f"{CANARY}-2".encode()).decode()}
    }
    copy = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(changed)}
    changed["metadata"] = {"annotations": copy}
    await patch(world, path_of(install, "secrets", "login"), changed)
    path = path_of(install, "configmaps", "gone")
    await world.clusters.ask(world.cluster, lambda client: client.delete(path))
    await compare(world, install)
    found = await world.findings(install)
    assert found == {
        "ConfigMap/settings": (OPEN, [{"path": "data.a", "before": "2", "after": "1"}]),
        "ConfigMap/gone": (OPEN, [{"path": "", "before": None, "after": "(as rendered)"}]),
        "Deployment/web": (OPEN, [{"path": "spec.replicas", "before": 1, "after": 0}]),
        "Secret/login": (
            OPEN,
            [{"path": "data.password", "before": "(hidden)", "after": "(hidden)"}],
        ),
    }
    assert CANARY not in json.dumps(found)
    assert base64.b64encode(CANARY.encode()).decode()[:12] not in json.dumps(found)


async def test_a_secret_whose_datum_is_gone_has_drifted(world: World) -> None:
    install = await world.deploy(secret(password=CANARY))
    await patch(world, path_of(install, "secrets", "login"), {"data": {"password": None}})
    await compare(world, install)
    delta = [{"path": "data.password", "before": None, "after": "(hidden)"}]
    assert await world.findings(install) == {"Secret/login": (OPEN, delta)}


async def test_an_object_that_was_made_anew_with_a_fixed_field_changed_has_drifted(
    world: World,
) -> None:
    install = await world.deploy(deployment())
    path = path_of(install, "deployments", "web")
    other = deployment()
    other["spec"]["selector"]["matchLabels"] = {"app": "other"}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}

    def make_anew(client: KubernetesClient) -> None:
        client.delete(path)
        client.create(path.rpartition("/")[0], other)

    await world.clusters.ask(world.cluster, make_anew)
    await compare(world, install)
    state, delta = (await world.findings(install))["Deployment/web"]
    assert state is OPEN
    assert {
        "path": "spec.selector.matchLabels.app",
        "before": "other",
        "after": "web",
    } in delta


async def test_a_finding_stays_one_and_ends_when_the_object_is_as_rendered(world: World) -> None:
    install = await world.deploy(config_map(a="1"))
    path = path_of(install, "configmaps", "settings")
    for value in ("2", "3"):
        await patch(world, path, {"data": {"a": value}})
        await compare(world, install)
        delta = [{"path": "data.a", "before": value, "after": "1"}]
        assert await world.findings(install) == {"ConfigMap/settings": (OPEN, delta)}
    world.now = datetime.now(UTC)
    await world.observer().look_at_all()
    row = await world.install(install)
    assert (row.health, row.sync) == (Health.HEALTHY, Sync.OUT_OF_SYNC)
    assert row.resources is not None
    assert row.resources[0]["status"] == Sync.OUT_OF_SYNC
    await patch(world, path, {"data": {"a": "1"}})
    await compare(world, install)
    assert (await world.findings(install))["ConfigMap/settings"][0] is RESOLVED
    await world.observer().look_at_all()
    assert (await world.install(install)).sync is Sync.SYNCED


async def test_an_install_is_due_when_it_was_seen_lately_and_not_compared(world: World) -> None:
    now = datetime.now(UTC)
    long_ago = now - timedelta(hours=1)
    seen = {"created_at": long_ago, "observed_at": now}
    due = await world.deploy(config_map(), **seen)
    unseen = await world.deploy(config_map(), created_at=long_ago, observed_at=long_ago)
    busy = await world.deploy(config_map(), active_operation_id="op_x", **seen)
    found = {one.install_id for one in await world.drift.due()}
    assert found & {due, unseen, busy} == {due}
    await compare(world, due)
    assert due not in {one.install_id for one in await world.drift.due()}


async def drifted(world: World, **columns: Any) -> str:  # noqa: ANN401 - columns
    """Have an install whose customer wants drift corrected, and that has drifted."""
    wanted = {"drift_correction": True, "observed_at": datetime.now(UTC), **columns}
    install = await world.deploy(config_map(a="1"), **wanted)
    await patch(world, path_of(install, "configmaps", "settings"), {"data": {"a": "2"}})
    await compare(world, install)
    return install


async def test_a_correction_deploys_the_same_render_once_more(world: World) -> None:
    install = await drifted(world)
    render_id = (await world.install(install)).current_render_id
    planned = await correction(world, install)
    assert planned is not None
    assert planned.type is OperationType.INSTALL_RESTORE
    async with world.database.workspace(world.workspace) as session:
        key = (world.workspace, planned.operation.operation_id)
        operation = await session.get_one(OperationRow, key)
        renders = select(RenderRow).where(RenderRow.operation_id == operation.id)
        render = (await session.exec(renders)).one()
    assert (render.restored_from_render_id, render.message) == (render_id, CORRECTION_MESSAGE)
    row = await world.install(install)
    assert row.active_operation_id == operation.id
    assert operation.request["skip_unchanged"] is False
    # The operation has the lock: nothing else is planned, and nothing is written.
    assert await correction(world, install) is None
    assert not await world.drift.write(request_of(world, install), render_id or "", [])


async def test_what_comes_back_after_a_correction_is_left_for_a_while(world: World) -> None:
    install = await drifted(world)
    assert await correction(world, install) is not None
    async with world.database.workspace(world.workspace) as session:
        query = select(RenderRow).where(
            RenderRow.install_id == install, RenderRow.message == CORRECTION_MESSAGE
        )
        render = (await session.exec(query)).one()
        render.state = RenderState.DEPLOYED
        before = await session.get_one(RenderRow, (world.workspace, render.restored_from_render_id))
        render.manifest = before.manifest
    await world.change(
        install, active_operation_id=None, current_render_id=render.id, state="healthy"
    )
    assert await correction(world, install) is None
    await patch(world, path_of(install, "configmaps", "settings"), {"data": {"a": "1"}})
    await compare(world, install)
    assert (await world.findings(install))["ConfigMap/settings"][0] is CORRECTED


async def test_what_the_clock_corrects_leaves_the_values_that_somebody_changed_meanwhile(
    world: World,
) -> None:
    install = await drifted(world)
    await world.change(install, values={"replicas": 2})
    planned = await correction(world, install)
    assert planned is not None
    assert isinstance(planned.operation, InstallOperation)
    await InstallRecords(world.database).reach_deployed(planned.operation)
    row = await world.install(install)
    assert row.active_operation_id is None
    # They come with the next render, and until then secrets follow what is deployed.
    assert row.values == {"replicas": 2}
    assert await InstallSecretRecords(world.database).values_of(planned.operation) == {}


def _closed() -> dict[str, Any]:
    """Return a window that opens in twelve hours."""
    start = datetime.now(UTC) + timedelta(hours=12)
    end = start + timedelta(minutes=10)
    return {"timezone": "UTC", "days": [], "start": f"{start:%H:%M}", "end": f"{end:%H:%M}"}


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(lambda: {"drift_correction": False}, id="not wanted"),
        pytest.param(lambda: {"held_at": datetime.now(UTC), "hold_reason": "fair"}, id="held"),
        pytest.param(lambda: {"update_window": _closed()}, id="window closed"),
        pytest.param(lambda: {"observed_at": datetime.now(UTC) - timedelta(hours=1)}, id="offline"),
        pytest.param(lambda: {"current_render_id": new_id(Prefix.RENDER)}, id="moved"),
    ],
)
async def test_nothing_is_corrected_where_something_stands_in_the_way(
    world: World, columns: Callable[[], dict[str, Any]]
) -> None:
    install = await drifted(world)
    render_id = (await world.install(install)).current_render_id
    await world.change(install, **columns())
    request = request_of(world, install)
    assert await world.drift.plan_correction(request, render_id or "") is None


async def test_nothing_is_corrected_while_an_emergency_stop_is_in_force(world: World) -> None:
    install = await drifted(world)
    stop = EmergencyStopRow(
        workspace_id=world.workspace,
        id=new_id(Prefix.EMERGENCY_STOP),
        scope=StopScope.WORKSPACE,
        reason="fire",
        stopped_by=Role.OWNER,
    )
    await world.add(world.workspace, stop)
    try:
        assert await correction(world, install) is None
    finally:
        await world.lift(stop.id)
    assert await correction(world, install) is not None
