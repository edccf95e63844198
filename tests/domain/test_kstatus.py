"""How live objects are, by their own fields and by their pods."""

from typing import Any

import pytest

from domain.install import Health
from domain.kstatus import ObjectStatus, overall, status_of, status_with_pods
from tests.domain.kstatus_cases import (
    AVAILABLE,
    BAD,
    CASES,
    DONE,
    FULL_DAEMONS,
    FULL_SET,
    MOVES,
    NOW,
    OK,
    STARTS,
    TWO,
    Json,
    condition,
    deployment,
    live,
    of_someones,
    pod,
    waiting,
    workload,
)


@pytest.mark.parametrize(
    ("found", "health", "said"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_an_object_is_as_its_own_fields_say(found: Json, health: Health, said: str) -> None:
    status = status_of(found, NOW)
    assert status.health is health, status
    assert said in status.reason
    # A container's last words are the application's, and may carry anything.
    assert "canary" not in status.reason


def test_nothing_lasts_without_a_clock() -> None:
    assert status_of(pod("Pending", waiting("ImagePullBackOff"))).health is MOVES


def test_what_others_wrote_is_one_short_line() -> None:
    stuck = of_someones(condition("Stalled", message="a\nb\x00" + "c" * 1000))
    assert status_of(stuck).reason == "a b " + "c" * 296


def _owned_by(owner: Json, child: Json, name: str, **metadata: Any) -> Json:  # noqa: ANN401 - metadata
    references = [{"uid": owner["metadata"]["uid"]}]
    return {
        **child,
        "metadata": {"name": name, "uid": name, "ownerReferences": references, **metadata},
    }


CRASHES = pod("Running", waiting("CrashLoopBackOff", restartCount=4))
STARTING = pod("Pending")


def test_a_deployment_is_as_bad_as_the_pods_of_its_newest_revision() -> None:
    moving = deployment(AVAILABLE, STARTS, updatedReplicas=1)
    revisions = [
        _owned_by(
            moving,
            live("ReplicaSet"),
            f"web-{number}",
            annotations={"deployment.kubernetes.io/revision": str(number)},
        )
        for number in (9, 10)
    ]
    old, new = revisions

    def judged(of_old: Json, of_new: Json) -> ObjectStatus:
        pods = [_owned_by(old, of_old, "web-9-x"), _owned_by(new, of_new, "web-10-x")]
        return status_with_pods(moving, pods, revisions, NOW)

    assert judged(CRASHES, STARTING).health is MOVES
    bad = judged(STARTING, CRASHES)
    assert bad.health is BAD
    assert bad.reason.startswith("Pod web-10-x: Container app has crashed 4 times")


def test_a_stateful_set_and_a_daemon_set_look_at_their_newest_pods() -> None:
    ordered = workload(
        "StatefulSet", TWO, **{**FULL_SET, "readyReplicas": 1}, updateRevision="web-b"
    )
    generation = {"annotations": {"deprecated.daemonset.template.generation": "7"}}
    everywhere = live(
        "DaemonSet",
        status={"observedGeneration": 2, **FULL_DAEMONS, "numberReady": 0},
        **generation,
    )
    for moving, label, old, new in (
        (ordered, "controller-revision-hash", "web-a", "web-b"),
        (everywhere, "pod-template-generation", "6", "7"),
    ):
        for value, health in ((old, MOVES), (new, BAD)):
            found = _owned_by(moving, CRASHES, "web-0", labels={label: value})
            assert status_with_pods(moving, [found], [], NOW).health is health


def test_pods_do_not_make_a_healthy_workload_worse() -> None:
    well = deployment(AVAILABLE, DONE)
    assert status_with_pods(well, [_owned_by(well, CRASHES, "x")], [], NOW).health is OK


def test_the_worst_object_is_named() -> None:
    fine, bad = ObjectStatus(OK, "It is there."), ObjectStatus(BAD, "It has failed.")
    moves, unknown = ObjectStatus(MOVES, "0 of 1."), ObjectStatus(Health.UNKNOWN, "It hides.")
    assert overall({}).health is OK
    assert overall({"Service/web": fine}).health is OK
    assert overall({"a": fine, "b": unknown, "c": moves}) == ObjectStatus(MOVES, "c: 0 of 1.")
    worst = overall({"a": unknown, "Job/x": bad, "Job/y": bad, "c": moves})
    assert worst == ObjectStatus(BAD, "Job/x: It has failed. (1 more like it)")
