"""What of a customer's failed operation a vendor is told."""

import itertools

import pytest

from domain.errors import Reason
from domain.install import Health
from domain.operation import Step
from domain.rollout_failures import UnhealthyObject, failure_told

TYPED = "hunter2"
WEB = {"kind": "Deployment", "metadata": {"name": "web"}}


def _told(name: str, said: str, values: dict[str, object]) -> str:
    manifest = {**WEB, "metadata": {"name": name}}
    found = UnhealthyObject.of(manifest, Health.DEGRADED, said, values)
    return failure_told(Step.WAIT_UNTIL_HEALTHY, Reason.FAILED_PRECONDITION, found.as_json())


def test_an_object_that_is_not_healthy_is_named_with_kubernetes_own_word() -> None:
    said = f"Container web has crashed 4 times (CrashLoopBackOff): password {TYPED}"
    told = "The new version did not become healthy: Deployment web is Degraded (CrashLoopBackOff)"
    assert _told("web", said, {"password": TYPED}) == told


@pytest.mark.parametrize("values", [{"a": {"b": ["Tenant-7"]}}, {"name": "tenant-7-web"}])
def test_a_name_that_has_a_customers_value_in_it_is_left_out(values: dict[str, object]) -> None:
    told = _told("tenant-7-web", "whatever", values)
    assert told == "The new version did not become healthy: Deployment is Degraded"


def test_every_failure_begins_a_sentence() -> None:
    for step, reason in itertools.product([*Step, None], Reason):
        told = failure_told(step, reason, None)
        assert told[0].isupper()
        assert not told.endswith(".")
        assert "_" not in told.replace(reason, "")
