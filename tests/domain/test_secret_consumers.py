"""How pods take Secrets: once at their start, or anew by themselves."""

from typing import Any

import pytest

from domain.secret_consumers import mounted, taken_at_start


def pod(container: dict[str, Any], *volumes: dict[str, Any], init: bool = False) -> dict[str, Any]:
    kind = "initContainers" if init else "containers"
    return {"spec": {kind: [{"name": "one", **container}], "volumes": list(volumes)}}


FROM_KEY = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "value"}}}]}
FROM_ALL = {"envFrom": [{"configMapRef": {"name": "other"}}, {"secretRef": {"name": "sec"}}]}
VOLUME = {"name": "v", "secret": {"secretName": "sec"}}
PROJECTED = {"name": "v", "projected": {"sources": [{"secret": {"name": "sec"}}]}}
MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
ONE_FILE = {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "value"}]}


@pytest.mark.parametrize(
    ("template", "at_start", "in_volumes"),
    [
        (pod(FROM_KEY), {"sec"}, set()),
        (pod(FROM_KEY, init=True), {"sec"}, set()),
        (pod(FROM_ALL), {"sec"}, set()),
        (pod(MOUNT, VOLUME), set(), {"sec"}),
        (pod(MOUNT, PROJECTED), set(), {"sec"}),
        # Kubelets never bring these up to date.
        (pod(ONE_FILE, VOLUME), {"sec"}, {"sec"}),
        (pod({"env": [{"name": "A", "value": "sec"}]}), set(), set()),
        ({}, set(), set()),
    ],
)
def test_a_value_is_taken_once_or_again_and_again(
    template: dict[str, Any], at_start: set[str], in_volumes: set[str]
) -> None:
    assert taken_at_start(template) == at_start
    assert mounted(template) == in_volumes
