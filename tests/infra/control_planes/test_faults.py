"""A full disk, a taken port, a program that cannot run: typed, and mended with their cause."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.cluster import HostedControlPlane, Leaf
from domain.errors import BulkheadError, Reason
from infra.control_planes.placement import HostPlacement
from tests.infra.control_planes.host import Host, nothing_meanwhile
from tests.servers import Servers

MEBIBYTE = 1024 * 1024

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def small_host(servers: Servers) -> Iterator[Host]:
    """A host whose directory is a disk of 400 MiB."""
    directory = servers.home / "small"
    directory.mkdir()
    subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=400m,mode=0711", "tmpfs", directory], check=True
    )
    settings = servers.control_planes.model_copy(update={"directory": directory})
    try:
        host = Host(servers, settings)
        host.supervisor.ensure_running()
        try:
            yield host
        finally:
            host.close()
    finally:
        subprocess.run(["/bin/umount", directory], check=True)
        directory.rmdir()


@needs_root
def test_a_first_start_is_refused_where_etcd_would_not_find_room(small_host: Host) -> None:
    cluster = small_host.new_cluster()
    small_host.prepare(cluster)
    filler = _fill(small_host, leave=100 * MEBIBYTE)
    with pytest.raises(BulkheadError) as refused:
        small_host.backend.start(cluster)
    assert refused.value.reason is Reason.CAPACITY_UNAVAILABLE
    assert not refused.value.retryable
    filler.unlink()
    small_host.start(cluster)
    small_host.remove(cluster)


@needs_root
def test_a_disk_that_fills_up_is_named_and_the_data_outlives_it(
    small_host: Host, tmp_path: Path
) -> None:
    cluster = small_host.new_cluster()
    small_host.prepare(cluster)
    small_host.start(cluster)
    kubectl = small_host.kubectl(cluster, tmp_path)
    kubectl("create", "configmap", "kept", "--from-literal=text=here")
    before = _certificates(small_host, cluster)
    small_host.stop(cluster)
    filler = _fill(small_host, leave=0)

    with pytest.raises(BulkheadError) as not_renewed:
        small_host.backend.renew_leaves(cluster, force=True)
    with pytest.raises(BulkheadError) as not_started:
        small_host.start(cluster)
    for refused in (not_renewed.value, not_started.value):
        assert refused.reason is Reason.CAPACITY_UNAVAILABLE
        assert not refused.retryable
        assert "Free space" in refused.message
    assert len(_certificates(small_host, cluster)) == len(before)

    filler.unlink()
    small_host.backend.ensure_credentials(cluster)
    small_host.start(cluster)
    assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.text}") == "here"
    filler = _fill(small_host, leave=0)
    small_host.remove(cluster)
    assert not any(small_host.backend.find_remains(cluster).values())
    filler.unlink()


@pytest.mark.full
@needs_root
def test_etcd_that_dies_of_a_full_disk_is_told_from_one_that_dies_of_something_else(
    small_host: Host,
) -> None:
    cluster = small_host.new_cluster()
    small_host.prepare(cluster)
    # It was begun before, so that nobody looks first whether there is room for that.
    layout = small_host.layout(cluster)
    member = layout.etcd_data / "member"
    member.mkdir(parents=True, exist_ok=True)
    shutil.chown(member, layout.directory.owner())
    # Enough to begin, and less than etcd sets aside for its log.
    filler = _fill(small_host, leave=16 * MEBIBYTE)
    small_host.backend.start(cluster)
    with pytest.raises(BulkheadError) as full:
        small_host.backend.wait_until_ready(cluster, nothing_meanwhile)
    assert full.value.reason is Reason.CAPACITY_UNAVAILABLE
    filler.unlink()
    small_host.remove(cluster)


@pytest.mark.full
def test_a_component_that_keeps_ending_is_named_with_its_last_words(host: Host) -> None:
    cluster = host.new_cluster()
    try:
        host.prepare(cluster)
        host.layout(cluster).key(Leaf.ETCD_SERVER).write_text("no key")
        host.backend.start(cluster)
        with pytest.raises(BulkheadError) as failed:
            host.backend.wait_until_ready(cluster, nothing_meanwhile)
        assert failed.value.reason is Reason.INTERNAL
        assert failed.value.metadata["component"] == "etcd"
        assert "PEM" in failed.value.message
        host.backend.ensure_credentials(cluster)
        host.start(cluster)
    finally:
        host.remove(cluster)


def test_a_port_of_another_process_is_a_conflict_until_it_is_free(host: Host) -> None:
    cluster = host.new_cluster()
    try:
        host.prepare(cluster)
        port = host.layout(cluster).etcd_port
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(BulkheadError) as refused:
                host.backend.start(cluster)
            assert refused.value.reason is Reason.CONFLICT
            assert refused.value.retryable
            assert refused.value.metadata["ports"] == str(port)
            assert host.backend.find_remains(cluster)["processes"] == []
        host.start(cluster)
    finally:
        host.remove(cluster)


@pytest.mark.full
def test_a_port_that_is_taken_after_the_look_is_a_conflict_too(host: Host) -> None:
    cluster = host.new_cluster()
    try:
        host.prepare(cluster)
        host.backend.start(cluster)
        pid = host.pids(cluster)[0]
        assert pid is not None
        port = host.layout(cluster).etcd_peer_port
        with _taken_from(pid, port), pytest.raises(BulkheadError) as refused:
            host.backend.wait_until_ready(cluster, nothing_meanwhile)
        assert refused.value.reason is Reason.CONFLICT
        host.start(cluster)
    finally:
        host.remove(cluster)


def test_a_host_without_programs_says_how_to_get_them(host: Host, tmp_path: Path) -> None:
    cluster = host.new_cluster()
    settings = host.settings.model_copy(update={"programs_dir": tmp_path / "none"})
    with pytest.raises(BulkheadError) as refused:
        HostPlacement(settings).check_programs()
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert "make up" in refused.value.message
    assert not host.layout(cluster).directory.exists()


@needs_root
def test_a_directory_that_others_cannot_reach_means_no_own_user_ids_and_says_so(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    settings = host.settings.model_copy(update={"directory": tmp_path / "closed" / "planes"})
    placement = HostPlacement(settings)
    assert "BULKHEAD_HOME" in placement.warning
    assert placement.layout_of(host.new_cluster()).uid is None


@contextlib.contextmanager
def _taken_from(pid: int, port: int) -> Iterator[None]:
    """Kill a process and listen on its port before it is back."""
    deadline = time.monotonic() + 20
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            try:
                listener.bind(("127.0.0.1", port))
                listener.listen(1)
            except OSError:
                assert time.monotonic() < deadline
            else:
                break
        yield


def _fill(host: Host, *, leave: int) -> Path:
    """Fill the host's disk but for some bytes; removing the file makes room again."""
    filler = host.settings.directory / "filler"
    # Without a buffer, of which the end would be written once more when the file is closed.
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                status = os.statvfs(host.settings.directory)
                room = status.f_bavail * status.f_frsize - leave
                if room <= 0:
                    break
                file.write(bytes(min(room, MEBIBYTE)))
        except OSError:
            return filler
    return filler


def _certificates(host: Host, cluster: HostedControlPlane) -> dict[Leaf, bytes]:
    layout = host.layout(cluster)
    return {
        leaf: layout.certificate(leaf).read_bytes()
        for leaf in Leaf
        if b"END CERTIFICATE" in layout.certificate(leaf).read_bytes()
    }
