import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from domain.errors import BulkheadError, Reason
from infra.helm.manifest import key_of, redact, render_hash, restore
from infra.helm.places import Places
from infra.helm.program import ClusterAccess, Helm
from infra.helm.release_chart import (
    RELEASE_LIMIT_BYTES,
    check_size,
    release_chart,
    release_size,
)
from infra.helm.releases import Release
from infra.kubernetes.client import Object
from infra.supervisor.configuration import source_root
from infra.tools import ensure
from tests.api.process import free_port
from tests.charts import archive
from tests.infra.helm.conftest import Place

_ANYWHERE = Release("anywhere", "anywhere")
_CROWDED = Release("crowded", "crowded")


def processes_of(release: Release) -> list[psutil.Process]:
    """Return the Helm processes of a release."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if f"--namespace={release.namespace}" in command:
            found.append(process)
    return found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.03)


async def gone(release: Release) -> None:
    async def holds() -> bool:
        return not processes_of(release)

    await until(holds)


async def with_status(place: Place, status: str) -> None:
    async def holds() -> bool:
        return status in await place.statuses()

    await until(holds)


async def with_object(place: Place, path: str) -> None:
    async def holds() -> bool:
        return place.client.find(path) is not None

    await until(holds)


def config_map(name: str, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": data,
    }


def large(count: int) -> list[Object]:
    """Return ConfigMaps of 64 KB that do not compress well."""
    return [
        config_map(f"large-{number}", {"data": base64.b64encode(os.urandom(48 * 1024)).decode()})
        for number in range(count)
    ]


@contextlib.asynccontextmanager
async def deploying(place: Place, objects: list[Object]) -> AsyncIterator[asyncio.Task[int]]:
    """Deploy in the background something of which a hook never ends: there is no node."""
    task = asyncio.create_task(place.deploy(objects))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_was_rendered_is_deployed_to_the_letter(place: Place) -> None:
    odd = {
        "braces": "{{ .Values.nothing }} {{ fail `x` }}",
        "yaml": "on: 12:30\n---\n- &a *a",
        "lines": "a\u2028b\r\n\tc",
        "beyond": "\U0001f600 \\ud83d é",
        "number": "1e3",
    }
    objects = [*await place.render("web", {"replicas": 0}), config_map("odd", odd)]
    assert await place.deploy(objects) == 1
    assert place.client.get(place.path_of("configmaps", "odd"))["data"] == odd
    deployment = place.client.get(place.path_of("deployments", "web", "apps"))
    assert deployment["spec"]["replicas"] == 0
    assert deployment["metadata"]["managedFields"][0]["manager"] == "helm"
    # What is left out goes, and the same once more changes nothing.
    before = place.client.get(place.path_of("configmaps", "odd"))["metadata"]["resourceVersion"]
    assert await place.deploy([config_map("odd", odd)]) == 2
    assert place.client.find(place.path_of("deployments", "web", "apps")) is None
    after = place.client.get(place.path_of("configmaps", "odd"))["metadata"]["resourceVersion"]
    assert before == after
    assert await place.statuses() == ["superseded", "deployed"]
    assert await place.helm.uninstall(place.release, place.access, seconds=20)
    assert not await place.helm.uninstall(place.release, place.access, seconds=20)
    assert place.client.find(place.path_of("configmaps", "odd")) is None
    assert await place.helm.status(place.release, place.access) is None


async def test_a_chart_with_its_own_kinds_renders_before_the_cluster_knows_them(
    place: Place,
) -> None:
    rendered = await place.helm.template(archive("with-crd"), {}, place.release, place.access)
    found = place.split(rendered)
    assert [obj["kind"] for obj in found.namespaced] == ["Widget"]
    assert sorted(obj["kind"] for obj in found.cluster) == [
        "ClusterRole",
        "CustomResourceDefinition",
    ]
    with pytest.raises(BulkheadError) as refused:
        place.split([{"apiVersion": "x.test/v1", "kind": "X", "metadata": {"name": "x"}}])
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    elsewhere = config_map("a", {})
    elsewhere["metadata"]["namespace"] = "kube-system"
    with pytest.raises(BulkheadError) as refused:
        place.split([elsewhere])
    assert "kube-system" in str(refused.value)


async def test_templates_look_up_their_own_namespace_alone(place: Place) -> None:
    key = b"k" * 32
    first, data = redact(await place.render("with-secret"), key)
    assert "hello" not in json.dumps(first)
    await place.deploy(restore(first, data))
    second, _ = redact(await place.render("with-secret"), key)
    assert render_hash(second) == render_hash(first)
    curious = archive(
        "with-secret",
        files={"templates/all.yaml": '# {{ lookup "v1" "Secret" "kube-system" "" | toJson }}'},
    )
    with pytest.raises(BulkheadError) as refused:
        await place.helm.template(curious, {}, place.release, place.access)
    assert refused.value.reason is Reason.PERMISSION_DENIED


def shown_by(process: psutil.Process) -> list[bytes]:
    """Return what others could see of a process that has no folder, and no file on a disk open."""
    assert [file for file in process.open_files() if not file.path.startswith("/sys/")] == []
    assert not Path(process.environ()["HOME"]).exists()
    return [" ".join(process.cmdline()).encode(), json.dumps(process.environ()).encode()]


async def test_a_running_helm_shows_no_key_and_no_secret_on_disk_argument_or_environment(
    place: Place,
) -> None:
    canary = "canary-of-this-test"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login"},
        "stringData": {"password": canary},
    }
    hook = await place.render("with-hook")
    key_line = place.access.login.key.splitlines()[1]
    needles = [canary.encode(), base64.b64encode(canary.encode()), key_line]
    needles.append(base64.b64encode(place.access.login.key)[:64])
    async with deploying(place, [secret, *hook]):
        await with_status(place, "pending-install")
        seen = shown_by(processes_of(place.release)[0])
        assert not [needle for needle in needles for text in seen if needle in text]


async def test_cancelled_helm_records_a_failure_and_leaves_no_process(place: Place) -> None:
    hook = await place.render("with-hook")
    async with deploying(place, hook) as task:
        await with_status(place, "pending-install")
        started = time.monotonic()
        task.cancel()
        await asyncio.wait({task})
        assert time.monotonic() - started < 9
    assert processes_of(place.release) == []
    assert await place.statuses() == ["failed"]
    assert await place.deploy([config_map("a", {"b": "c"})]) == 2


@pytest.mark.parametrize("deployed", [0, 1])
async def test_a_killed_helm_holds_nobody_up_and_what_it_deployed_is_taken_over(
    place: Place, deployed: int
) -> None:
    kept, new = config_map("kept", {"a": "1"}), config_map("new", {"a": "1"})
    for _ in range(deployed):
        await place.deploy([kept])
    hook = await place.render("with-hook")
    for obj in hook:
        if obj["kind"] == "Job":
            obj["metadata"]["annotations"]["helm.sh/hook"] = "post-install,post-upgrade"
    status = "pending-upgrade" if deployed else "pending-install"
    async with deploying(place, [kept, new, *hook]) as task:
        await with_status(place, status)
        await with_object(place, place.path_of("jobs", "prepare", "batch"))
        processes_of(place.release)[0].kill()
        with pytest.raises(BulkheadError):
            await task
    before = place.client.get(place.path_of("configmaps", "new"))["metadata"]["uid"]
    assert (await place.statuses())[-1] == status
    assert await place.deploy([kept, new]) == deployed + 2
    # Helm calls a first revision superseded that failed.
    assert (await place.statuses())[-2:] == ["failed" if deployed else "superseded", "deployed"]
    assert place.client.get(place.path_of("configmaps", "new"))["metadata"]["uid"] == before


_WORKER = """
import asyncio, sys
from pathlib import Path
from infra.helm.program import ClusterAccess, Helm
from infra.helm.releases import Release
from infra.kubernetes.logins import Login
program, url, name, folder = sys.argv[1:]
read = lambda file: Path(folder, file).read_bytes()
login = Login(read("ca").decode(), read("certificate"), read("key"))
deploying = Helm(Path(program)).upgrade(
    read("chart"), Release(name, name), ClusterAccess(url, login), seconds=60
)
asyncio.run(deploying)
"""


@contextlib.contextmanager
def worker_that_deploys(place: Place, packed: bytes) -> Iterator[subprocess.Popen[bytes]]:
    login = place.access.login
    parts = {"ca": login.authority.encode(), "certificate": login.certificate, "key": login.key}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**parts, "chart": packed}.items():
            Path(folder, name).write_bytes(content)
        helm = os.fspath(ensure(("helm",))["helm"])
        arguments = [helm, place.access.url, place.release.name, folder]
        with subprocess.Popen(
            [sys.executable, "-c", _WORKER, *arguments], cwd=source_root()
        ) as worker:
            yield worker
            worker.kill()


@pytest.mark.full
async def test_helm_dies_with_the_worker_that_started_it(place: Place) -> None:
    packed = release_chart("chart", "1.0.0", "1", await place.render("with-hook"))
    with worker_that_deploys(place, packed) as worker:
        await with_status(place, "pending-install")
        assert processes_of(place.release)
        worker.kill()
        await gone(place.release)


async def test_a_hook_that_never_ends_is_given_up_and_can_be_left_out_of_the_end(
    place: Place,
) -> None:
    hook = await place.render("with-hook")
    for obj in hook:
        if obj["kind"] == "Job":
            obj["metadata"]["annotations"]["helm.sh/hook"] = "post-install,pre-delete"
    with pytest.raises(BulkheadError) as refused:
        await place.deploy(hook, seconds=1)
    assert refused.value.reason is Reason.DEADLINE_EXCEEDED
    assert refused.value.metadata["cause"] == "hook"
    with pytest.raises(BulkheadError) as refused:
        await place.helm.uninstall(place.release, place.access, seconds=1)
    assert refused.value.metadata["cause"] == "hook"
    assert await place.helm.uninstall(place.release, place.access, seconds=5, with_hooks=False)
    assert place.client.find(place.path_of("configmaps", "config")) is None


async def test_what_the_api_server_refuses_is_told_apart(place: Place) -> None:
    await place.deploy(await place.render("immutable"))
    causes = []
    foreign = config_map("foreign", {})
    place.client.create(place.path_of("configmaps"), foreign)
    wrong = config_map("wrong", {"a": 1})  # type: ignore[dict-item]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "x"},
    }
    for objects in (
        await place.render("immutable", {"greeting": "other"}),
        [foreign],
        [wrong],
        [role],
        [{"apiVersion": "x.test/v1", "kind": "X", "metadata": {"name": "x"}}],
        large(12),
    ):
        with pytest.raises(BulkheadError) as refused:
            await place.deploy(objects)
        causes.append((refused.value.reason, refused.value.metadata["cause"]))
    assert causes == [
        (Reason.FAILED_PRECONDITION, "immutable"),
        (Reason.CONFLICT, "not_ours"),
        (Reason.INVALID_ARGUMENT, "object"),
        (Reason.PERMISSION_DENIED, "forbidden"),
        (Reason.FAILED_PRECONDITION, "unknown_kind"),
        (Reason.FAILED_PRECONDITION, "too_large"),
    ]


@pytest.mark.full
async def test_the_size_of_a_release_is_foreseen(place: Place) -> None:
    objects = large(5)
    await place.deploy(objects)
    record = place.client.get(
        place.path_of("secrets", f"sh.helm.release.v1.{place.release.name}.v1")
    )
    size = len(base64.b64decode(record["data"]["release"]))
    assert release_size("chart", "1.0.0", "1.0.0", objects) == pytest.approx(size, rel=0.06)
    with pytest.raises(BulkheadError) as refused:
        check_size(release_size("chart", "1.0.0", "1.0.0", large(12)))
    assert str(RELEASE_LIMIT_BYTES) in refused.value.metadata["limit"]


async def test_a_datum_of_a_secret_is_in_no_error(place: Place) -> None:
    canary = "canary of this test"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login", "namespace": place.release.namespace},
        "data": {"password": canary},
    }
    with pytest.raises(BulkheadError) as refused:
        await place.deploy([secret])
    assert refused.value.metadata["cause"] == "object"
    assert canary not in str(refused.value)


_NOT_ACCEPTED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("web", {"replicas": "two"}, ("values", "replicas")),
    ("web", {"labels": {"a/b": 1}}, ("values", "labels", "a/b")),
    ("web", {"replica": 1}, ("values",)),
    ("secret-consumer", {}, ("values", "password")),
]


@pytest.mark.parametrize(("chart", "values", "path"), _NOT_ACCEPTED)
async def test_values_that_fail_the_schema_are_refused_with_their_path(
    helm: Helm, chart: str, values: dict[str, Any], path: tuple[str, ...]
) -> None:
    with pytest.raises(BulkheadError) as refused:
        await helm.template(archive(chart), values, _ANYWHERE)
    assert (refused.value.reason, refused.value.path) == (Reason.INVALID_ARGUMENT, path)


_SENT = "hunter2-hunter2"
_REFUSING: dict[str, Any] = {
    "a": {"pattern": "^[a-z]+$"},
    "b": {"type": "integer"},
    "c": {"maxLength": 3},
    "d": {"propertyNames": {"maxLength": 3}},
    "e": {"additionalProperties": False},
    "f": {"allOf": [{"pattern": "^x"}]},
    "g": {"maximum": 50},
    "h": {"enum": ["small", "large"]},
}


async def test_an_error_about_values_has_nothing_of_what_was_sent(helm: Helm) -> None:
    chart = archive(
        "web",
        files={
            "values.yaml": "{}",
            "values.schema.json": json.dumps({"properties": _REFUSING}),
        },
    )
    values: dict[str, Any] = dict.fromkeys(_REFUSING, _SENT)
    values |= {"d": {_SENT: 1}, "e": {_SENT: 1}, "g": 47114711}
    with pytest.raises(BulkheadError) as refused:
        await helm.template(chart, values, _ANYWHERE)
    said = f"{refused.value.message} {refused.value.metadata}"
    assert "hunter2" not in said
    assert "4711" not in said
    # The place that is said of the name of a property is another one each time.
    assert set(refused.value.metadata["faults"].split("; ")) >= {
        "values.a: pattern",
        "values.b: type is integer",
        "values.c: maxLength is 3",
        "values.e: additionalProperties",
        "values.f: pattern",
        "values.g: maximum is 50",
        "values.h: enum is 'small', 'large'",
    }


_FAULTS = {
    "evaluation": "greeting: {{ required `greeting is missing` .Values.nothing }}",
    "syntax": "greeting: {{ if }}",
    "yaml": "greeting: [\n",
    "no object": "greeting: hello",
    "no name": "apiVersion: v1\nkind: ConfigMap\n",
    "endless": "{{ range untilStep 0 1000000000 1 }}x{{ end }}",
}


@pytest.mark.parametrize("text", _FAULTS.values(), ids=_FAULTS)
async def test_a_template_that_cannot_be_used_is_the_charts_fault(helm: Helm, text: str) -> None:
    chart = archive("immutable", files={"templates/more.yaml": text})
    with pytest.raises(BulkheadError) as refused:
        await helm.template(chart, {}, _ANYWHERE, seconds=1.5)
    assert refused.value.reason in {
        Reason.INVALID_ARGUMENT,
        Reason.FAILED_PRECONDITION,
        Reason.DEADLINE_EXCEEDED,
    }


async def test_a_rendering_without_a_cluster_has_hooks_and_kinds_but_no_tests(helm: Helm) -> None:
    objects = await helm.template(
        archive("with-hook"), {}, _ANYWHERE, kube_version="v1.36.0", api_versions=("x.test/v1/X",)
    )
    assert [key_of(obj) for obj in objects] == ["/ConfigMap//config", "batch/Job//prepare"]
    with pytest.raises(BulkheadError) as refused:
        await helm.template(archive("web"), {}, _ANYWHERE, kube_version="v1.29.0")
    assert refused.value.metadata["cause"] == "kube_version"


async def test_a_cluster_that_does_not_answer_is_tried_again(helm: Helm, place: Place) -> None:
    nowhere = ClusterAccess(f"https://127.0.0.1:{free_port()}", place.access.login)
    for attempt in (
        helm.template(archive("web"), {}, place.release, nowhere),
        helm.uninstall(place.release, nowhere, seconds=5),
        helm.upgrade(archive("web"), place.release, nowhere, seconds=5),
    ):
        with pytest.raises(BulkheadError) as refused:
            await attempt
        assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert refused.value.retryable


async def test_no_more_charts_are_rendered_at_a_time_than_there_are_places() -> None:
    helm = Helm(ensure(("helm",))["helm"], Places(renders=2, deployments=1))
    slow = archive("web", files={"templates/slow.yaml": "{{ range until 3000000 }}{{ end }}"})
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(processes_of(_CROWDED)))
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        renders = [group.create_task(helm.template(slow, {}, _CROWDED)) for _ in range(5)]
        await asyncio.wait(renders)
        watching.cancel()
    assert all(render.result() for render in renders)
    assert most == 2


def test_what_renders_at_a_time_has_half_of_the_memory_at_most() -> None:
    gigabyte = 1024**3
    assert Places.for_memory(2 * gigabyte) == Places(renders=1, deployments=5)
    assert Places.for_memory(64 * gigabyte) == Places(renders=16, deployments=163)
    assert Places.of_this_host().renders >= 1
