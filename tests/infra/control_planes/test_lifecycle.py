"""Repeats, half-made states, stops, renewals: each ends in the same control plane."""

import contextlib
import http.client
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.cluster import Component, HostedControlPlane, Leaf
from domain.errors import BulkheadError, Reason
from infra.control_planes.certificates import LEAF_LIFETIME_SECONDS
from infra.control_planes.commands import programs_of
from infra.control_planes.diagnosis import busy_ports
from infra.control_planes.first_start import is_stuck
from infra.control_planes.layout import Layout
from infra.control_planes.placement import HostPlacement
from infra.control_planes.processes import ProcessBackend
from infra.control_planes.readiness import served_certificate
from infra.openbao.authorities import Authority
from infra.supervisor.configuration import source_root
from tests.infra.control_planes.host import (
    Host,
    Kubectl,
    make_kubeconfig,
    nothing_meanwhile,
    running_host,
)
from tests.processes import suspended
from tests.servers import Servers

# Enough that all of them miss once in a million runs.
KILLS = 40

# How long a client that asks all the time may wait for one answer while certificates are renewed.
ANSWERS_WITHIN_SECONDS = 2.0


def test_a_repeat_of_every_step_changes_nothing(host: Host, cluster: HostedControlPlane) -> None:
    before = _fingerprint(host, cluster)
    pids = host.pids(cluster)
    validity = host.backend.ensure_credentials(cluster)
    host.prepare(cluster)
    host.start(cluster)
    assert _fingerprint(host, cluster) == before
    assert host.pids(cluster) == pids
    assert host.backend.renew_leaves(cluster) == validity
    now = time.time()
    assert now + LEAF_LIFETIME_SECONDS * 0.6 < validity.renew_after < validity.expire_at


def test_half_made_files_are_made_good(host: Host) -> None:
    cluster = host.new_cluster()
    layout = host.layout(cluster)
    try:
        host.prepare(cluster)
        # What a kill may leave: a new key beside an old certificate, a cut file, a missing one.
        layout.key(Leaf.API_SERVER).write_bytes(layout.key(Leaf.SCHEDULER).read_bytes())
        layout.certificate(Leaf.ETCD_SERVER).write_bytes(b"-----BEGIN CERTIF")
        layout.certificate(Leaf.ETCD_CLIENT).unlink()
        layout.key(Leaf.CONTROLLER_MANAGER).write_bytes(b"")
        layout.encryption_configuration.unlink()
        layout.service_account_key.write_text("")
        layout.kubeconfig(Leaf.SCHEDULER).unlink()
        host.backend.ensure_credentials(cluster)
        host.start(cluster)
    finally:
        host.remove(cluster)


def test_a_control_plane_killed_while_it_starts_becomes_ready(host: Host) -> None:
    cluster = host.new_cluster()
    try:
        host.prepare(cluster)
        host.backend.start(cluster)
        for component in (Component.ETCD, Component.API_SERVER):
            time.sleep(0.3)
            _kill(host, cluster, component)
        host.start(cluster)
        assert None not in host.pids(cluster)
    finally:
        host.remove(cluster)


@pytest.mark.full
def test_an_etcd_killed_before_it_knew_itself_begins_again(host: Host) -> None:
    cluster = host.new_cluster()
    layout = host.layout(cluster)
    try:
        host.prepare(cluster)
        # Of the kills at this moment about one in three leaves a log without the membership.
        for _ in range(KILLS):
            shutil.rmtree(layout.etcd_data / "member", ignore_errors=True)
            with _etcd(layout):
                _until((layout.etcd_data / "member" / "wal").exists, pause=0.0001)
            with _etcd(layout):
                _until(lambda: bool(busy_ports(layout)))
                time.sleep(1)
                if served_certificate("127.0.0.1", layout.etcd_port) is None:
                    break
        else:
            pytest.fail("no kill left an etcd that hangs")
        host.start(cluster)
    finally:
        host.remove(cluster)


def test_a_store_that_holds_objects_is_never_begun_again(
    host: Host, cluster: HostedControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = host.layout(cluster)
    monkeypatch.setattr("infra.control_planes.first_start.STUCK_SECONDS", 0.0)
    # The worst case: it serves nobody, and the mark of its first readiness is lost.
    layout.was_ready.unlink()
    etcd = host.supervisor.state(layout.name)[Component.ETCD]
    assert etcd.pid is not None
    with suspended(etcd.pid):
        assert served_certificate("127.0.0.1", layout.etcd_port) is None
        assert not is_stuck(layout, etcd)
    host.start(cluster)
    assert layout.was_ready.exists()


def test_a_stop_keeps_the_data_and_a_start_brings_it_back(host: Host, tmp_path: Path) -> None:
    with host.cluster() as cluster:
        kubectl = host.kubectl(cluster, tmp_path)
        kubectl("create", "secret", "generic", "kept", "--from-literal=value=still-here")
        host.stop(cluster)
        stopped = host.backend.find_remains(cluster)
        host.stop(cluster)
        host.start(cluster)
        value = kubectl("get", "secret", "kept", "-o", "go-template={{.data.value | base64decode}}")
        assert value == "still-here"
        assert (stopped["processes"], stopped["ports"], stopped["group"]) == ([], [], [])
        assert stopped["directory"] != []


def test_a_kill_of_the_hosts_supervisord_brings_every_component_back_once(
    host: Host, cluster: HostedControlPlane
) -> None:
    before = host.pids(cluster)
    killed = host.supervisor.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    _until(lambda: host.supervisor.pid not in {None, killed})
    host.start(cluster)
    after = host.pids(cluster)
    assert not set(before) & set(after)
    assert len(host.backend.find_remains(cluster)["processes"]) == len(Component)


@pytest.mark.full
def test_the_host_program_stops_every_control_plane_and_brings_each_back(
    servers: Servers, tmp_path: Path
) -> None:
    with running_host(servers, "stopped") as own, own.cluster() as cluster:
        kubectl = own.kubectl(cluster, tmp_path)
        kubectl("create", "configmap", "kept", "--from-literal=text=here")
        _run_host(own, "--stop")
        _run_host(own, "--stop")
        stopped = own.backend.find_remains(cluster)
        _run_host(own)
        _run_host(own)
        own.backend.wait_until_ready(cluster, nothing_meanwhile)
        assert (stopped["processes"], stopped["ports"]) == ([], [])
        assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.text}") == "here"


def test_certificates_are_renewed_while_the_api_keeps_answering(
    host: Host, cluster: HostedControlPlane
) -> None:
    layout = host.layout(cluster)
    before = {leaf: layout.certificate(leaf).read_bytes() for leaf in Leaf}
    lasting = [
        position
        for position, component in enumerate(Component)
        if component in {Component.ETCD, Component.API_SERVER, Component.TUNNEL_SERVER}
    ]
    servers = [host.pids(cluster)[position] for position in lasting]
    with _asking(host, cluster) as answers:
        _until(lambda: len(answers.seconds) > 10)
        validity = host.backend.renew_leaves(cluster, force=True)
        host.backend.reload(cluster, nothing_meanwhile)
        host.backend.wait_until_ready(cluster, nothing_meanwhile)
        before_the_end = len(answers.seconds)
        _until(lambda: len(answers.seconds) > before_the_end + 10)
    assert all(layout.certificate(leaf).read_bytes() != before[leaf] for leaf in Leaf)
    assert answers.failures == []
    assert max(answers.seconds) < ANSWERS_WITHIN_SECONDS
    # None of those that others talk through was restarted; all show the new certificates.
    assert [host.pids(cluster)[position] for position in lasting] == servers
    assert host.backend.renew_leaves(cluster) == validity


def test_only_leaves_that_are_due_are_replaced(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = host.new_cluster()
    layout = host.layout(cluster)
    try:
        host.prepare(cluster)
        with monkeypatch.context() as patch:
            # A certificate begins half a minute before it is made: this one is due at once.
            patch.setattr("infra.control_planes.credentials.LEAF_LIFETIME_SECONDS", 5)
            layout.certificate(Leaf.SCHEDULER).unlink()
            host.backend.ensure_credentials(cluster)
        before = {leaf: layout.certificate(leaf).read_bytes() for leaf in Leaf}
        host.backend.renew_leaves(cluster)
        changed = [leaf for leaf in Leaf if layout.certificate(leaf).read_bytes() != before[leaf]]
        assert changed == [Leaf.SCHEDULER]
    finally:
        host.remove(cluster)


def test_a_changed_address_of_the_host_gets_into_the_certificates_of_what_nodes_reach(
    host: Host,
) -> None:
    cluster = host.new_cluster()
    layout = host.layout(cluster)
    moved = ProcessBackend(
        host.settings.model_copy(update={"advertise_host": "clusters.example.test"}),
        host.openbao,
    )
    try:
        host.prepare(cluster)
        before = {leaf: layout.certificate(leaf).read_bytes() for leaf in Leaf}
        moved.ensure_credentials(cluster)
        changed = [leaf for leaf in Leaf if layout.certificate(leaf).read_bytes() != before[leaf]]
        assert changed == [Leaf.API_SERVER, Leaf.TUNNEL_SERVER]
    finally:
        host.remove(cluster)


@pytest.mark.full
def test_a_renewal_moves_a_running_cluster_to_the_hosts_new_address(
    host: Host, tmp_path: Path
) -> None:
    with host.cluster() as cluster:
        host.kubectl(cluster, tmp_path)("create", "configmap", "kept", "--from-literal=text=here")
        address = "127.0.0.77"
        moved = host.settings.model_copy(
            update={"advertise_host": address, "bind_address": address}
        )
        backend = ProcessBackend(moved, host.openbao)
        backend.renew_leaves(cluster)
        backend.reload(cluster, nothing_meanwhile)
        backend.wait_until_ready(cluster, nothing_meanwhile)
        layout = HostPlacement(moved).layout_of(cluster)
        kubeconfig = tmp_path / "moved"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(make_kubeconfig(host.api, cluster, layout.local_api_url))
        text = Kubectl(kubeconfig)("get", "configmap", "kept", "-o", "jsonpath={.data.text}")
        assert layout.local_api_host == address
        assert text == "here"
        assert served_certificate(address, layout.tunnel_port) is not None
        assert served_certificate("127.0.0.1", layout.api_port) is None


@pytest.mark.full
def test_a_control_plane_of_a_version_without_tunnels_gets_one_when_it_is_started(
    host: Host,
) -> None:
    with host.cluster() as cluster:
        layout = host.layout(cluster)
        older = [
            program for program in programs_of(layout) if program.name != Component.TUNNEL_SERVER
        ]
        host.stop(cluster)
        host.supervisor.add(layout.name, older)
        shutil.rmtree(layout.tunnel)
        layout.egress_configuration.unlink()
        for leaf in (Leaf.TUNNEL_SERVER, Leaf.TUNNEL_CLIENT):
            layout.certificate(leaf).unlink()
        host.start(cluster)
        assert None not in host.pids(cluster)


def test_a_removal_leaves_nothing_even_when_one_was_cut_short(host: Host) -> None:
    with host.cluster() as cluster:
        layout = host.layout(cluster)
        # A removal that died half-way: everything still runs, and files are missing.
        for path in layout.pki.iterdir():
            path.unlink()
        layout.encryption_configuration.unlink()
        host.remove(cluster)
        assert not any(host.backend.find_remains(cluster).values())
        assert host.openbao.find_leftovers(cluster) == []
        host.remove(cluster)


def test_credentials_without_authorities_say_what_is_missing(host: Host) -> None:
    cluster = host.new_cluster()
    host.openbao.ensure_secret_space(cluster.workspace_id)
    try:
        with pytest.raises(BulkheadError) as refused:
            host.backend.ensure_credentials(cluster)
        assert refused.value.reason is Reason.FAILED_PRECONDITION
    finally:
        host.remove(cluster)


class _Answers:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []


@contextlib.contextmanager
def _asking(host: Host, cluster: HostedControlPlane) -> Iterator[_Answers]:
    """Ask the API for its namespaces all the time, each time on a connection of its own."""
    layout = host.layout(cluster)
    context = ssl.create_default_context(cafile=str(layout.authority(Authority.KUBERNETES)))
    answers, ended = _Answers(), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            begun = time.monotonic()
            connection = http.client.HTTPSConnection(
                "127.0.0.1", layout.api_port, context=context, timeout=10
            )
            try:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    answers.failures.append(body.decode())
            except OSError as error:
                answers.failures.append(repr(error))
            finally:
                connection.close()
            answers.seconds.append(time.monotonic() - begun)
            time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def _fingerprint(host: Host, cluster: HostedControlPlane) -> dict[str, tuple[bytes, int]]:
    directory = host.layout(cluster).directory
    files = [*(directory / "pki").iterdir(), *directory.glob("*.*")]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@contextlib.contextmanager
def _etcd(layout: Layout) -> Iterator[None]:
    """Run the cluster's etcd by hand, and kill it."""
    etcd = programs_of(layout)[0]
    with subprocess.Popen(
        etcd.command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=etcd.uid,
        group=etcd.uid,
        extra_groups=None if etcd.uid is None else [],
    ) as process:
        try:
            yield
        finally:
            process.kill()


def _run_host(host: Host, *arguments: str) -> None:
    environment = {
        f"CONTROL_PLANES__{name.upper()}": str(value)
        for name, value in host.settings.model_dump(mode="json").items()
    }
    subprocess.run(
        [sys.executable, "-m", "infra.control_planes.host", *arguments],
        check=True,
        cwd=source_root(),
        env=environment,
    )


def _kill(host: Host, cluster: HostedControlPlane, component: Component) -> None:
    def pid() -> int | None:
        statuses = host.backend.describe(cluster).components
        return next(found.pid for found in statuses if found.component == component)

    # Between two starts of it there is none.
    while (found := pid()) is None:
        time.sleep(0.05)
    os.kill(found, signal.SIGKILL)


def _until(condition: Callable[[], object], seconds: float = 60.0, *, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)
