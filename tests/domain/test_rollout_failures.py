"""What of a customer's failed operation a vendor is told."""

import itertools

from domain.errors import Reason
from domain.install import Health
from domain.operation import Step
from domain.rollout_failures import UnhealthyObject, failure_told

TYPED = "hunter2"


def _told(kind: str, said: str) -> str:
    found = UnhealthyObject.of(kind, Health.DEGRADED, said)
    return failure_told(Step.WAIT_UNTIL_HEALTHY, Reason.FAILED_PRECONDITION, found.as_json())


def test_an_object_that_is_not_healthy_is_told_by_its_kind_and_kubernetes_own_word() -> None:
    said = f"Container web has crashed 4 times (CrashLoopBackOff): password {TYPED}"
    told = "The new version did not become healthy: Deployment is Degraded (CrashLoopBackOff)"
    assert _told("Deployment", said) == told


def test_a_kind_of_the_charts_own_is_not_told() -> None:
    told = _told(f"Of{TYPED}", "whatever")
    assert told == "The new version did not become healthy: an object of its chart is Degraded"


def test_every_failure_begins_a_sentence() -> None:
    for step, reason in itertools.product([*Step, None], Reason):
        told = failure_told(step, reason, None)
        assert told[0].isupper()
        assert not told.endswith(".")
        assert "_" not in told.replace(reason, "")
