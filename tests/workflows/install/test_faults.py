"""What goes wrong with charts, plans and clusters, and what an install then does about it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.install import InstallState, RenderState
from domain.names import install_namespace_of
from domain.operation import OperationState, Step
from domain.owned_operation import InstallOperation
from tests.durability import CANCELS_WITHIN_SECONDS, ENDS_WITHIN_SECONDS
from tests.workflows.install.deploying import HOOK_SECONDS
from tests.workflows.install.site import Site

CRASHING = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: registry.k8s.io/pause:3.10.1, args: [crash]}]
"""

_ONE_FOR_ALL = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: one-for-all-installs}
rules: []
"""

_BIG = """\
{{- range $number := until 32 }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: big-{{ $number }}}
data:
  {{- range $line := until 1000 }}
  {{ printf "line-%d" $line }}: {{ printf "%d/%d" $number $line | sha256sum }}
  {{- end }}
{{- end }}
"""


@contextlib.asynccontextmanager
async def forgotten(site: Site, *operations: InstallOperation) -> AsyncIterator[None]:
    """Remove what operations installed, whatever comes."""
    try:
        yield
    finally:
        for operation in operations:
            await site.forget(operation.install_id)


async def failed(site: Site, operation: InstallOperation) -> dict[str, Any]:
    """Wait until an operation has failed, and return its error."""
    state = await site.platform.end_of(operation, ENDS_WITHIN_SECONDS)
    row = await site.platform.operation(operation)
    assert state is OperationState.FAILED, row.response
    assert row.error is not None
    return row.error


async def test_what_changes_nothing_and_what_cannot_be_deployed_leaves_an_install_as_it_is(
    site: Site,
) -> None:
    first = await site.create(await site.publish("web"), {"greeting": "hello"})
    async with forgotten(site, first):
        await site.platform.succeed(first)
        # Another version whose objects are the same.
        newer = await site.publish("web", "1.0.1")
        again = await site.update(first.install_id, newer)
        await site.platform.succeed(again)
        operation = await site.platform.operation(again)
        assert operation.response is not None
        assert operation.response["skipped"] is True
        assert (await site.render_of(again)).state is RenderState.SKIPPED
        broken = await site.publish("web", files={"templates/broken.yaml": "{{ .Values.no.way }}"})
        for version, values, said in (
            (newer, {"replicas": "many"}, "values.replicas"),
            (broken, {}, "no.way"),
            (await site.publish("web", files={"templates/big.yaml": _BIG}), {}, "1,048,576"),
        ):
            error = await failed(site, await site.update(first.install_id, version, values))
            assert said in error["message"]
        row = await site.known(first.install_id)
        assert (row.current_version_id, row.desired_version_id) == (newer.version_id,) * 2
        assert (row.release_revision, row.state) == (1, InstallState.HEALTHY)


async def test_a_release_that_never_gets_healthy_goes_back_to_the_last_good_render(
    site: Site,
) -> None:
    web = await site.create(await site.publish("web"), {"greeting": "hello"})
    async with forgotten(site, web):
        await site.platform.succeed(web)
        good = await site.current_render(web.install_id)
        bad = await site.publish("web", "2.0.0", files={"templates/other.yaml": _other()})
        update = await site.update(web.install_id, bad, {"greeting": "bye"})
        error = await failed(site, update)
        assert "Deployment other" in error["message"]
        assert "CrashLoopBackOff" in error["message"]
        row = await site.known(web.install_id)
        assert row.state is InstallState.HEALTHY
        assert (row.current_render_id, row.desired_version_id) == (good.id, good.package_version_id)
        assert await site.find(web.install_id, "deployments/other") is None
        found = await site.find(web.install_id, "deployments/web")
        assert found is not None
        container = found["spec"]["template"]["spec"]["containers"][0]
        assert container["env"][0]["value"] == "hello"


async def test_an_immutable_field_that_changes_waits_for_an_approval_of_its_very_plan(
    site: Site,
) -> None:
    first = await site.create(await site.publish("immutable"), {"greeting": "hello"})
    async with forgotten(site, first):
        await site.platform.succeed(first)
        before = await site.find(first.install_id, "configmaps/config")
        update = await site.update(
            first.install_id, await site.publish("immutable"), {"greeting": "bye"}
        )
        await site.waiting(update, "approval")
        render = await site.render_of(update)
        assert render.plan is not None
        [change] = render.plan["changes"]
        assert (change["change"], change["name"]) == ("replaced", "config")
        assert {"path": "data.greeting", "before": "hello", "after": "bye"} in change["diff"]
        # Somebody changes the object meanwhile: what was approved is not what would be done.
        await _replace_config(site, first.install_id, "meddled")
        await site.approve(update)
        await _until_digest_is_not(site, update, str(render.plan_digest))
        assert (await site.platform.operation(update)).waiting_for == "approval"
        last = (await site.platform.operation(update)).last_error
        assert last is not None
        assert "changed since it was approved" in last["message"]
        await site.approve(update)
        await site.platform.succeed(update)
        after = await site.find(first.install_id, "configmaps/config")
        assert before is not None
        assert after is not None
        assert after["data"] == {"greeting": "bye"}
        assert after["metadata"]["uid"] != before["metadata"]["uid"]


@pytest.mark.full
async def test_a_plan_that_a_rollout_approved_and_that_is_stale_is_refused(site: Site) -> None:
    web = await site.create(await site.publish("web"))
    async with forgotten(site, web):
        await site.platform.succeed(web)
        update = await site.update(
            web.install_id,
            await site.publish("web"),
            {"replicas": 2},
            request={"approved_plan_digest": "sha256:other"},
        )
        error = await failed(site, update)
        assert (error["reason"], "stale" in error["message"]) == ("FAILED_PRECONDITION", True)


@pytest.mark.full
async def test_a_wait_for_an_approval_heeds_a_cancel(site: Site) -> None:
    operation = await site.create(await site.publish("with-crd"))
    await site.waiting(operation, "approval")
    assert await site.platform.cancel(operation)
    assert await site.platform.end_of(operation, CANCELS_WITHIN_SECONDS) is OperationState.CANCELLED
    assert await site.remains(operation.install_id) == {}


@pytest.mark.full
async def test_an_object_of_the_cluster_that_is_anothers_is_refused(site: Site) -> None:
    charts = await site.publish("web", files={"templates/role.yaml": _ONE_FOR_ALL})
    first = await site.create(charts)
    async with forgotten(site, first):
        await site.waiting(first, "approval")
        await site.approve(first)
        await site.platform.succeed(first)
        second = await site.create(charts)
        error = await failed(site, second)
        assert "not of this install" in error["message"]
        # And it took nothing of the first one with it.
        assert "cluster_objects" in await site.remains(first.install_id)


@pytest.mark.full
async def test_a_hook_that_never_ends_is_stopped_and_undone(site: Site) -> None:
    began = time.monotonic()
    operation = await site.create(await site.publish("with-hook"), {"ends": False})
    error = await failed(site, operation)
    assert "hook" in error["message"]
    assert time.monotonic() - began < HOOK_SECONDS + 30
    assert await site.remains(operation.install_id) == {}


@pytest.mark.full
async def test_a_cancel_in_the_middle_of_a_hook_is_heeded(site: Site) -> None:
    hook = await site.publish("with-hook")
    first = await site.create(hook)
    async with forgotten(site, first):
        await site.platform.succeed(first)
        update = await site.update(first.install_id, hook, {"ends": False, "greeting": "bye"})
        await site.at_step(update, Step.APPLY_RELEASE)
        await asyncio.sleep(1)
        assert await site.platform.cancel(update)
        assert (
            await site.platform.end_of(update, CANCELS_WITHIN_SECONDS) is OperationState.CANCELLED
        )
        found = await site.find(first.install_id, "configmaps/config")
        assert found is not None
        assert found["data"] == {"greeting": "hello"}
        # The release is not locked: the next one is deployed.
        await site.platform.succeed(await site.update(first.install_id, hook, {"greeting": "new"}))


def _other() -> str:
    return CRASHING.replace("web", "other", 3).replace("name: web", "name: other")


async def _replace_config(site: Site, install_id: str, text: str) -> None:
    path = f"/api/v1/namespaces/{install_namespace_of(install_id)}/configmaps"
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config"},
        "immutable": True,
        "data": {"greeting": text},
    }
    await site.ask(lambda client: client.delete(f"{path}/config"))
    await site.ask(lambda client: client.create(path, config))


async def _until_digest_is_not(site: Site, operation: InstallOperation, digest: str) -> None:
    async with asyncio.timeout(ENDS_WITHIN_SECONDS):
        while True:
            render = await site.render_of(operation)
            row = await site.platform.operation(operation)
            if render.plan_digest != digest and row.waiting_for == "approval":
                return
            await asyncio.sleep(0.1)
