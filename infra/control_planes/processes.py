"""The process backend: each control plane is a group of processes under supervisord."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Final

from domain.cluster import Component, HostedControlPlane, Leaf, Validity
from domain.errors import BulkheadError, Reason
from infra.control_planes.backend import (
    ComponentStatus,
    ControlPlaneBackend,
    Description,
    OnWait,
)
from infra.control_planes.commands import programs_of
from infra.control_planes.credentials import Credentials
from infra.control_planes.diagnosis import ProcessWatch, busy_ports, check_ports
from infra.control_planes.files import disk_full, free_bytes, typed_disk_errors
from infra.control_planes.layout import LOOPBACK, Layout
from infra.control_planes.measure import resident_bytes
from infra.control_planes.placement import HostPlacement
from infra.control_planes.readiness import ReadinessClient, served_certificate
from infra.control_planes.remains import end_processes, processes_of
from infra.kubernetes.objects import kept_objects
from infra.openbao.client import OpenBao
from infra.settings import ControlPlaneSettings
from infra.supervisor.program import ProcessState
from infra.supervisor.supervisor import Supervisor

# An idle machine with two cores needs 4.5 s; twenty at once on it took over a minute.
READY_SECONDS: Final = 300.0

# The API server and etcd look at their files all the time, the tunnel server with each
# connection: measured within 0.1 s.
_RELOAD_SECONDS: Final = 15.0

# Short against the quickest start, long against the cost of one request.
_POLL_SECONDS: Final = 0.05

# What a new control plane writes before it holds anything: etcd sets aside two files of 64 MiB.
_FIRST_START_BYTES: Final = 256 * 1024 * 1024

# Those that only ask the API server end first, and the tunnel, for whose streams it would wait;
# then it, and etcd when nobody asks it any more: etcd waits for its clients, 8 s at worst.
_STOP_ORDER: Final = (
    Component.SCHEDULER,
    Component.CONTROLLER_MANAGER,
    Component.TUNNEL_SERVER,
    Component.API_SERVER,
)

# The API server goes on for 10 s to take a token for good that it has looked at.
_TOKEN_CACHE_SECONDS: Final = 11.0


class ProcessBackend(ControlPlaneBackend):
    """Control planes as processes of this host. Safe to use from several threads and processes.

    Args:
        settings: this host's.
        openbao: signs the leaves and keeps the keys of the clusters.
    """

    def __init__(self, settings: ControlPlaneSettings, openbao: OpenBao) -> None:
        self._settings = settings
        self._openbao = openbao
        self._placement = HostPlacement(settings)
        self._supervisor = host_supervisor(settings)

    def ensure_credentials(self, cluster: HostedControlPlane) -> Validity:
        """Write every file that the processes need; replace leaves that are due or do not fit.

        Raises:
            BulkheadError: CAPACITY_UNAVAILABLE for a full disk, FAILED_PRECONDITION when the
                cluster has no authorities.
        """
        return self.renew_leaves(cluster)

    def renew_leaves(self, cluster: HostedControlPlane, *, force: bool = False) -> Validity:
        """Replace the leaves that are due, or all of them; see `ensure_credentials`."""
        layout = self._placement.layout_of(cluster)
        with typed_disk_errors(layout.directory):
            return Credentials(self._openbao, cluster, layout).ensure(force=force)

    def start(self, cluster: HostedControlPlane) -> None:
        """Have all components started at once; returns before they are ready.

        Raises:
            BulkheadError: CAPACITY_UNAVAILABLE for a full disk, CONFLICT when another process has
                one of the ports.
        """
        layout = self._placement.layout_of(cluster)
        if not layout.egress_configuration.exists():
            # It was made by a version that had no tunnels, and its renewal is still to come.
            self.ensure_credentials(cluster)
        is_first = not (layout.etcd_data / "member").exists()
        if is_first and free_bytes(layout.directory) < _FIRST_START_BYTES:
            raise disk_full(layout.directory)
        with typed_disk_errors(layout.directory):
            self._placement.check_programs()
            self._supervisor.ensure_running()
            processes = self._supervisor.state(layout.name)
            if not processes:
                # Whatever runs of it now is nobody's: two etcd on one directory would ruin it.
                end_processes(layout)
                check_ports(layout)
            for name, process in processes.items():
                if process.state is ProcessState.BACKOFF:
                    # It waits longer after each try; whoever asks now expects one now.
                    self._supervisor.stop(layout.name, name)
            self._supervisor.add(layout.name, programs_of(layout))

    def wait_until_ready(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """Return when a client finds the cluster usable, and administrators have their rights.

        Raises:
            BulkheadError: DEADLINE_EXCEEDED after `READY_SECONDS`; at once CAPACITY_UNAVAILABLE
                for a full disk, CONFLICT for a port that another process has, INTERNAL for a
                component that keeps ending.
        """
        layout = self._placement.layout_of(cluster)
        deadline = time.monotonic() + READY_SECONDS
        watch = ProcessWatch(self._supervisor, layout)
        objects = kept_objects(cluster.network_profile, self._settings.coredns_image)
        with ReadinessClient(self._openbao, cluster, layout, objects) as client:
            while True:
                on_wait()
                missing = client.what_is_missing(on_wait)
                if missing is None:
                    if watch.all_run():
                        with typed_disk_errors(layout.directory):
                            layout.was_ready.touch(mode=0o600)
                        return
                    missing = "all components to run"
                watch.check()
                if time.monotonic() > deadline:
                    raise watch.too_late(READY_SECONDS, missing)
                time.sleep(_POLL_SECONDS)

    def reload(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """Have every component use the leaves on disk, one at a time, while the API answers.

        The API server, etcd and the tunnel server take them up by themselves, as servers at once
        and as clients with their next connection: whatever goes through them goes on. The two
        controllers would take two minutes, and are restarted, which interrupts nobody.

        A control plane that was started by an older version, or for another address, is started
        as it should be now: then its API does not answer for some seconds.

        Raises:
            BulkheadError: DEADLINE_EXCEEDED when a server goes on showing another certificate.
        """
        layout = self._placement.layout_of(cluster)
        _run(lambda: self._supervisor.add(layout.name, programs_of(layout)), on_wait)
        for component in (Component.SCHEDULER, Component.CONTROLLER_MANAGER):
            # Killed, not asked: they keep no state, and a SIGTERM that comes within moments of a
            # start is lost.
            _run(partial(self._supervisor.restart, layout.name, component, "KILL"), on_wait)
        local = layout.local_api_host
        self._await_served(local, layout.api_port, layout, Leaf.API_SERVER, on_wait)
        self._await_served(local, layout.tunnel_port, layout, Leaf.TUNNEL_SERVER, on_wait)
        self._await_served(LOOPBACK, layout.etcd_port, layout, Leaf.ETCD_SERVER, on_wait)

    def restart_tunnel(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """Cut off every agent whose token does not count any more; the others come back.

        An agent is asked for its token only when it connects. The API server may answer for what
        it knew `_TOKEN_CACHE_SECONDS` ago, so that is waited out first: who deleted a Node object
        before the call finds its agent outside afterwards. Takes 11 s.

        Raises:
            BulkheadError: DEADLINE_EXCEEDED when the tunnel server does not come back, NOT_FOUND
                when the control plane does not run.
        """
        layout = self._placement.layout_of(cluster)
        _wait(_TOKEN_CACHE_SECONDS, on_wait)
        restart = partial(self._supervisor.restart, layout.name, Component.TUNNEL_SERVER, "KILL")
        _run(restart, on_wait)
        host, port = layout.local_api_host, layout.tunnel_port
        self._await_served(host, port, layout, Leaf.TUNNEL_SERVER, on_wait)

    def stop(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """End all components and keep their data."""
        _run(partial(self._stop, self._placement.layout_of(cluster)), on_wait)

    def remove(self, cluster: HostedControlPlane) -> None:
        """Remove everything on the host, what still runs included."""
        layout = self._placement.layout_of(cluster)
        self._stop(layout)
        try:
            shutil.rmtree(layout.directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BulkheadError(
                Reason.INTERNAL,
                f"The directory {layout.name} cannot be removed ({error.strerror}): something is "
                "mounted or protected in it. Look at it on the control-plane host.",
            ) from error

    def describe(self, cluster: HostedControlPlane) -> Description:
        """Say what runs, and how much memory each component has."""
        layout = self._placement.layout_of(cluster)
        processes = self._supervisor.state(layout.name) if self._supervisor.pid else {}
        statuses: list[ComponentStatus] = []
        for component in Component:
            process = processes.get(component)
            statuses.append(
                ComponentStatus(
                    component=component,
                    state="absent" if process is None else process.state.name.lower(),
                    pid=None if process is None else process.pid,
                    started_at=0 if process is None else process.started_at,
                    memory_bytes=resident_bytes(None if process is None else process.pid),
                    problem="" if process is None else process.problem,
                )
            )
        return Description(
            components=tuple(statuses), uid=layout.uid, warning=self._placement.warning
        )

    def find_remains(self, cluster: HostedControlPlane) -> dict[str, list[str]]:
        """Look for processes, files, ports and a group of the cluster on this host."""
        layout = self._placement.layout_of(cluster)
        processes = processes_of(layout)
        return {
            "processes": [f"{name} ({pid})" for pid, name in processes.items()],
            "directory": [layout.name] if layout.directory.exists() else [],
            "ports": [f"{port} ({name})" for name, port in busy_ports(layout).items()],
            "group": [layout.name] if layout.name in self._supervisor.groups() else [],
            "logs": [path.name for path in self._supervisor.files.logs.glob(f"{layout.name}.*")],
        }

    def _stop(self, layout: Layout) -> None:
        if self._supervisor.pid is not None:
            for component in _STOP_ORDER:
                self._supervisor.stop(layout.name, component)
        self._supervisor.remove(layout.name)
        end_processes(layout)

    def _await_served(
        self, host: str, port: int, layout: Layout, leaf: Leaf, on_wait: OnWait
    ) -> None:
        wanted = layout.certificate(leaf).read_bytes().split()
        deadline = time.monotonic() + _RELOAD_SECONDS
        while True:
            on_wait()
            served = served_certificate(host.strip("[]"), port)
            if served is not None and served.split() == wanted:
                return
            if time.monotonic() > deadline:
                raise BulkheadError(
                    Reason.DEADLINE_EXCEEDED,
                    f"The server with the certificate {leaf} does not show the new one after "
                    f"{_RELOAD_SECONDS:.0f} s.",
                )
            time.sleep(_POLL_SECONDS)


def host_supervisor(settings: ControlPlaneSettings) -> Supervisor:
    """Return the supervisord of the control planes of this host."""
    return Supervisor(settings.directory / "supervisor")


def _wait(seconds: float, on_wait: OnWait) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        on_wait()
        time.sleep(min(left, 0.25))


def _run(work: Callable[[], None], on_wait: OnWait) -> None:
    """Run something that blocks, and report meanwhile that we live.

    When the wait shall end, what has begun is finished first: a stop that goes on behind a start
    would end what was just started.
    """
    result: Future[None] = Future()

    def target() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread
            result.set_exception(error)
        else:
            result.set_result(None)

    thread = Thread(target=target, daemon=True)
    thread.start()
    ended: BaseException | None = None
    while thread.is_alive():
        thread.join(timeout=0.25)
        if ended is None:
            try:
                on_wait()
            except BaseException as error:  # noqa: BLE001 - raised again when the work has ended
                ended = error
    if ended is not None:
        raise ended
    result.result()
