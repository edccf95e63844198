"""A create completes once, whatever process is killed in the middle of it."""

import os
import random
import signal
import time

import pytest

from domain.cluster import Component
from domain.operation import OPERATIONS, OperationType
from infra.control_planes.processes import host_supervisor
from tests.end_to_end.stack import Bulkhead, wait_until_healthy

PARTS = ["worker", "api", "temporal", "openbao", "postgresql", "supervisord", "control-planes"]
STEPS = [step.value for step in OPERATIONS[OperationType.CLUSTER_CREATE].steps]
HEALS_WITHIN_SECONDS = 60.0


def _completes_once(bulkhead: Bulkhead, part: str, step: str) -> None:
    wait_until_healthy(bulkhead)
    creating = bulkhead.create_cluster()
    bulkhead.wait_for_step(creating, step)
    bulkhead.kill(part)
    ended = bulkhead.end_of(creating)
    assert ended["state"] == "SUCCEEDED", (part, step, ended["error"])
    wait_until_healthy(bulkhead)
    only = {f"cp-{creating['owner_id'][4:]}": len(Component)}
    try:
        # A component that began before what it needs is started again.
        bulkhead.eventually(lambda: bulkhead.control_planes() == only or None)
        clusters = bulkhead.get("/clusters")["data"]
        assert [each["id"] for each in clusters] == [creating["owner_id"]]
    finally:
        assert bulkhead.delete_cluster(creating["owner_id"])["state"] == "SUCCEEDED"
    assert bulkhead.control_planes() == {}


@pytest.mark.parametrize("part", PARTS)
def test_a_create_completes_once_although_a_part_is_killed(bulkhead: Bulkhead, part: str) -> None:
    _completes_once(bulkhead, part, random.choice(STEPS[1:]))


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", PARTS)
def test_a_create_completes_once_although_a_part_is_killed_at_every_step(
    bulkhead: Bulkhead, part: str
) -> None:
    for step in STEPS:
        _completes_once(bulkhead, part, step)


def test_a_killed_component_of_a_control_plane_comes_back(bulkhead: Bulkhead) -> None:
    created = bulkhead.end_of(bulkhead.create_cluster())
    group = f"cp-{created['owner_id'][4:]}"
    supervisor = host_supervisor(bulkhead.stack.control_planes)
    try:
        for name, process in supervisor.state(group).items():
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            deadline = time.monotonic() + HEALS_WITHIN_SECONDS
            while supervisor.state(group)[name].pid in {None, 0, process.pid}:
                assert time.monotonic() < deadline, f"{name} did not come back"
                time.sleep(0.1)
    finally:
        bulkhead.delete_cluster(created["owner_id"])
