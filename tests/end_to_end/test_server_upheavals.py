"""The control plane stops, starts again and renews certificates while nodes work in its cluster."""

import asyncio
import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from threading import Thread
from uuid import uuid4

import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.control_planes.processes import host_supervisor
from infra.local_cloud import LocalServer
from infra.openbao.policies import WORKER
from infra.temporal.client import TemporalConnection
from tests.end_to_end.csr import csr, signing_request
from tests.end_to_end.intruder import Intruder
from tests.end_to_end.servers import Place, until
from tests.end_to_end.stack import Body, wait_until_healthy
from tests.end_to_end.workload import (
    check_pod,
    kubectl_in_background,
    pods_by_node,
    run_workload,
)

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]

_HEALS_WITHIN = 180.0
_NODES = 10
_SHORT_SECONDS = 240
_KUBELET_PKI = "/var/lib/kubelet/pki"


def _answers(place: Place, node: str) -> bool | None:
    """Whether the kubelet answers through the tunnel."""
    path = f"/api/v1/nodes/{node}/proxy/healthz"
    asked = place.bulkhead.kubectl(place.kubeconfig, "get", "--raw", path)
    return asked.stdout.strip() == "ok" or None


def test_ten_nodes_come_back_when_their_control_plane_host_restarts(place: Place) -> None:
    servers = []
    for number in range(_NODES):
        servers.append(place.switch_on(f"node-{number}"))
        if number % 2:
            # No more at once than this machine has processors.
            place.joined(servers[-1])
    machines = place.joined_once(*servers)
    place.bulkhead.stack.down()
    time.sleep(5)
    place.bulkhead.stack.up()
    wait_until_healthy(place.bulkhead)
    for machine in machines:
        until(partial(_answers, place, machine["node_name"]), _HEALS_WITHIN, "an answer")
    until(lambda: set(place.nodes().values()) == {"True"} or None, _HEALS_WITHIN, "all to be ready")
    for machine in machines:
        place.await_health(machine, "healthy", _HEALS_WITHIN)
        found = place.bulkhead.get(f"/operations?owner_type=machine&owner_id={machine['id']}")
        assert [each["metadata"]["type"] for each in found["data"]] == ["machine.create"]
    place.joined_once(*servers)


def _change(place: Place, verb: str) -> None:
    etag = place.bulkhead.get(f"/clusters/{place.cluster_id}")["etag"]
    asked = place.bulkhead.persist(
        "POST", f"/clusters/{place.cluster_id}:{verb}", headers={"If-Match": etag}
    )
    ended = place.bulkhead.end_of(asked)
    assert ended["state"] == "SUCCEEDED", ended


def test_nodes_outlive_that_their_cluster_was_suspended(place: Place) -> None:
    server = place.switch_on("patient")
    machine = place.joined(server)
    run_workload(place, replicas=1)
    before = pods_by_node(place)
    started = server.run("pgrep -f '[n]etexec'").output
    _change(place, "suspend")
    time.sleep(15)
    assert server.run("pgrep -f '[n]etexec'").output == started != ""
    _change(place, "resume")
    until(lambda: _answers(place, machine["node_name"]), _HEALS_WITHIN, "an answer")
    place.await_health(machine, "healthy", _HEALS_WITHIN)
    assert pods_by_node(place) == before
    check_pod(place, before[machine["node_name"]][0])
    place.joined_once(server)


class _Stream:
    """Lines that a kubectl prints as they come, for as long as it runs."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self._running = running
        self.lines = 0
        Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        assert self._running.stdout is not None
        for _ in self._running.stdout:
            self.lines += 1

    @property
    def has_ended(self) -> bool:
        return self._running.poll() is not None

    def assert_goes_on(self) -> None:
        before = self.lines
        until(lambda: self.lines > before or None, 15, "another line")
        assert not self.has_ended


@contextlib.contextmanager
def _streams(place: Place) -> Iterator[list[_Stream]]:
    """Follow the log of a pod, and run a program in it, both of which write all the time."""
    name = f"talker-{uuid4().hex[:8]}"
    talks = ["logs-generator", "--log-lines-total=100000", "--run-duration=3h"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "talker", "image": place.demo_image, "args": talks}],
        },
    }
    place.apply(pod)
    place.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    with (
        kubectl_in_background(place, "logs", "--follow", name) as logs,
        kubectl_in_background(place, "exec", name, "--", "/agnhost", *talks) as execution,
    ):
        streams = [_Stream(logs), _Stream(execution)]
        for stream in streams:
            stream.assert_goes_on()
        yield streams


async def _trigger_renewals(place: Place) -> None:
    stack = place.bulkhead.stack
    connection = TemporalConnection(stack.temporal, stack.openbao(WORKER), WORKER)
    client = await connection.client()
    await client.get_schedule_handle("renew-cluster-certificates").trigger()
    connection.close()


def test_streams_go_on_while_the_control_plane_renews_its_certificates(place: Place) -> None:
    machine = place.joined(place.switch_on("talking"))
    path = f"/operations?owner_type=cluster&owner_id={place.cluster_id}"

    def renewals() -> list[Body]:
        found = place.bulkhead.get(path)["data"]
        return [each for each in found if "renew" in each["metadata"]["type"]]

    known = len(renewals())
    with _streams(place) as streams:
        with place.bulkhead.stack.administrator("bulkhead") as connection:
            connection.execute(
                "UPDATE clusters SET certificates_renew_after = now() - interval '1 h'"
                " WHERE id = %s",
                (place.cluster_id,),
            )
        asyncio.run(_trigger_renewals(place))
        until(lambda: len(renewals()) > known or None, 60, "a renewal")
        ended = place.bulkhead.end_of(renewals()[0])
        assert ended["state"] == "SUCCEEDED", ended
        assert _answers(place, machine["node_name"])
        for stream in streams:
            stream.assert_goes_on()
    place.await_health(machine, "healthy", _HEALS_WITHIN)


@contextlib.contextmanager
def _short_certificates(place: Place) -> Iterator[None]:
    """Have the cluster sign certificates that a kubelet renews after two minutes."""
    supervisor = host_supervisor(place.bulkhead.stack.control_planes)
    group, name = f"cp-{place.cluster_id[4:]}", "kube-controller-manager"
    process = psutil.Process(supervisor.state(group)[name].pid)
    given = [
        each
        for each in process.cmdline()
        if not each.startswith(("--cluster-signing-duration", "--leader-elect"))
    ]
    short = [f"--cluster-signing-duration={_SHORT_SECONDS}s", "--leader-elect=false"]
    uid = process.uids().real
    supervisor.stop(group, name)
    try:
        with subprocess.Popen(
            [*given, *short], user=uid, group=uid, extra_groups=[], stderr=subprocess.DEVNULL
        ) as running:
            yield
            running.terminate()
    finally:
        supervisor.restart(group, name)


def _shorten(place: Place, intruder: Intruder, node: str) -> None:
    """Give a kubelet certificates that end soon, as if it had run for most of an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = signing_request({"CN": [f"system:node:{node}"], "O": ["system:nodes"]}, key=key)
    name = f"short-{uuid4().hex[:8]}"
    file = place.directory / f"{name}.json"
    file.write_text(json.dumps(csr(name, "kubernetes.io/kube-apiserver-client-kubelet", request)))
    made = intruder.kubectl(intruder.as_node, "create", "-f", str(file))
    assert made.returncode == 0, made.stderr
    read = ("get", "csr", name, "-o", "jsonpath={.status.certificate}")
    certificate = until(lambda: place.kubectl(*read) or None, 30, "a certificate")
    pem = (
        base64.b64decode(certificate).decode()
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode()
    )
    short = f"{_KUBELET_PKI}/kubelet-client-2000-01-01-00-00-00.pem"
    done = intruder.server.run(
        # Its timer would take the certificate for one that has nearly ended, and restart kubelet.
        "systemctl stop bulkhead-node.timer bulkhead-kubelet && umask 077 &&"
        f" cat >{short} <<'END'\n{pem}END\n"
        f"ln -sf {short} {_KUBELET_PKI}/kubelet-client-current.pem &&"
        f" rm {_KUBELET_PKI}/kubelet-server-* && systemctl start bulkhead-kubelet"
    )
    assert done.status == 0, done


def _differs(server: LocalServer, command: str, before: str) -> bool | None:
    now = server.run(command)
    return (now.status == 0 and now.output != before) or None


def test_streams_go_on_while_a_kubelet_renews_its_certificates(place: Place) -> None:
    server = place.switch_on("renewing")
    machine = place.joined(server)
    intruder = Intruder(place, server)
    with _short_certificates(place):
        _shorten(place, intruder, machine["node_name"])
        serials = [
            f"openssl x509 -noout -serial -in {_KUBELET_PKI}/kubelet-{kind}-current.pem"
            for kind in ("client", "server")
        ]
        until(lambda: server.run(serials[1]).status == 0 or None, 60, "a serving certificate")
        until(lambda: _answers(place, machine["node_name"]), 60, "an answer")
        with _streams(place) as streams:
            before = {serial: server.run(serial).output for serial in serials}
            for serial in serials:
                until(partial(_differs, server, serial, before[serial]), _SHORT_SECONDS, serial)
            # The first ones have ended.
            time.sleep(_SHORT_SECONDS / 2)
            for stream in streams:
                stream.assert_goes_on()
        shown = place.bulkhead.get(f"/machines/{machine['id']}")["certificates"]
        for kind in ("kubelet_client", "kubelet_serving"):
            assert shown[kind]["expires_at"] > time.time()
            assert shown[kind]["renewed_at"] is not None
    server.run("systemctl start bulkhead-node.timer")
    place.await_health(machine, "healthy", _HEALS_WITHIN)
