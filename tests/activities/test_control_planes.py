"""The steps of a cluster's life, as a worker runs them."""

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from temporalio.exceptions import CancelledError
from temporalio.testing import ActivityEnvironment

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from domain.cluster import Component, HostedControlPlane, Validity
from domain.errors import BulkheadError, Reason
from tests.infra.control_planes.host import Host

Result = TypeVar("Result")

# One request to an API server that takes connections and does not answer yet, and a poll.
NOTICES_A_CANCEL_WITHIN_SECONDS = 4.0

NOTHING_LEFT = dict.fromkeys(
    ("processes", "directory", "ports", "group", "logs", "authorities"), "none"
)


@pytest.fixture
def cluster(host: Host) -> Iterator[HostedControlPlane]:
    found = host.new_cluster()
    yield found
    host.remove(found)


def test_every_step_repeated_leads_to_a_cluster_and_every_undo_repeated_to_nothing(
    planes: ControlPlaneActivities, spaces: OpenBaoActivities, cluster: HostedControlPlane
) -> None:
    results = [
        _twice(step, cluster)
        for step in (
            spaces.ensure_secret_space,
            spaces.ensure_authorities,
            planes.ensure_credentials,
            planes.start_components,
            planes.wait_until_ready,
            planes.renew_leaves,
            planes.reload_components,
            planes.stop_components,
            planes.restart_components,
        )
    ]
    validity = results[2]
    assert isinstance(validity, Validity)
    assert time.time() < validity.renew_after < validity.expire_at
    assert results[5] == validity
    with pytest.raises(BulkheadError) as too_early:
        _run(planes.verify_removed, cluster)
    assert too_early.value.reason is Reason.CONFLICT
    assert too_early.value.retryable
    assert set(too_early.value.metadata) == set(NOTHING_LEFT)
    for undo in (planes.stop_components, planes.remove_directory, spaces.remove_authorities):
        _twice(undo, cluster)
    assert _run(planes.verify_removed, cluster).facts == NOTHING_LEFT


def test_every_undo_is_fine_with_a_step_that_never_ran(
    planes: ControlPlaneActivities, spaces: OpenBaoActivities, cluster: HostedControlPlane
) -> None:
    for undo in (planes.stop_components, planes.remove_directory, spaces.remove_authorities):
        _run(undo, cluster)
    assert _run(planes.verify_removed, cluster).facts == NOTHING_LEFT


def test_what_is_left_is_found_by_looking(
    host: Host,
    planes: ControlPlaneActivities,
    spaces: OpenBaoActivities,
    cluster: HostedControlPlane,
) -> None:
    layout = host.layout(cluster)
    layout.directory.mkdir()
    spaces.ensure_secret_space(cluster)
    spaces.ensure_authorities(cluster)
    log = host.supervisor.files.program_log(layout.name, Component.ETCD)
    log.touch()
    listener = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        ["/usr/bin/env", "python3", "-c", listener, str(layout.api_port)],
        cwd=layout.directory,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(BulkheadError) as left:
            _run(planes.verify_removed, cluster)
        process.kill()
    found = left.value.metadata
    assert f"({process.pid})" in found["processes"]
    assert found["directory"] == layout.name
    assert str(layout.api_port) in found["ports"]
    assert found["logs"] == log.name
    assert "mount pki/" in found["authorities"]
    assert "encryption" in found["authorities"]
    assert "group" not in found


def test_a_removal_ends_what_nobody_supervises(
    host: Host, planes: ControlPlaneActivities, cluster: HostedControlPlane
) -> None:
    directory = host.layout(cluster).directory
    directory.mkdir()
    with subprocess.Popen(["/bin/sleep", "60"], cwd=directory) as stray:
        _run(planes.remove_directory, cluster)
        assert stray.wait(5) != 0
    assert _run(planes.verify_removed, cluster).facts == NOTHING_LEFT


def test_a_wait_ends_soon_after_a_cancel(
    planes: ControlPlaneActivities, spaces: OpenBaoActivities, cluster: HostedControlPlane
) -> None:
    _start(planes, spaces, cluster)
    environment = ActivityEnvironment()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(environment.run, planes.wait_until_ready, cluster)
        time.sleep(0.3)
        begun = time.monotonic()
        environment.cancel()
        with pytest.raises(CancelledError):
            ended.result(timeout=30)
        assert time.monotonic() - begun < NOTICES_A_CANCEL_WITHIN_SECONDS


def test_a_cancelled_stop_ends_only_when_nothing_of_it_goes_on(
    host: Host,
    planes: ControlPlaneActivities,
    spaces: OpenBaoActivities,
    cluster: HostedControlPlane,
) -> None:
    _start(planes, spaces, cluster)
    environment = ActivityEnvironment()
    environment.cancel()
    with pytest.raises(CancelledError):
        environment.run(planes.stop_components, cluster)
    assert host.backend.find_remains(cluster)["processes"] == []
    _run(planes.restart_components, cluster)
    assert None not in host.pids(cluster)


def _start(
    planes: ControlPlaneActivities, spaces: OpenBaoActivities, cluster: HostedControlPlane
) -> None:
    for step in (
        spaces.ensure_secret_space,
        spaces.ensure_authorities,
        planes.ensure_credentials,
        planes.start_components,
    ):
        _run(step, cluster)


def _twice(step: Callable[[HostedControlPlane], object], cluster: HostedControlPlane) -> object:
    first = _run(step, cluster)
    second = _run(step, cluster)
    assert second == first
    return second


def _run(step: Callable[[HostedControlPlane], Result], cluster: HostedControlPlane) -> Result:
    return ActivityEnvironment().run(step, cluster)
