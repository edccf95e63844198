"""What a cluster's API server asks of pods and kubelets: on a server that lets nothing in.

All of it goes through the connection that the server opened: an admission webhook and an API of a
pod by the Service's address, which exists on nodes alone, proxied requests by the pod's own.
"""

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from infra.local_cloud import LocalServer
from tests.end_to_end.servers import Place, running_place, until
from tests.end_to_end.stack import Body
from tests.end_to_end.workload import await_rollout
from tests.infra.https_server import Authority, new_authority

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

_NAME = "extension"
_GROUP, _VERSION = "canary.example", "v1"
# What Kubernetes' test image denies in a ConfigMap, and what it says.
_FORBIDDEN = {"webhook-e2e-test": "webhook-disallow"}
_DENIAL = "the configmap contains unwanted key and value"
_WEBHOOK_PORT, _HTTPS_PORT, _HTTP_PORT = 8443, 8444, 8080
# Of an API server that has just been told.
_TAKES_UP_WITHIN = 60.0


class Called:
    """A server that joined, and on it a pod that answers what the API server asks."""

    def __init__(self, place: Place, server: LocalServer, machine: Body) -> None:
        self.place = place
        self.server = server
        self.node = str(machine["node_name"])
        self.authority = new_authority(f"{_NAME}.default.svc")
        place.apply(*_workload(place.demo_image, self.authority))
        await_rollout(place, _NAME)

    def get(self, path: str) -> str:
        """Read a path of the cluster's API."""
        return self.place.kubectl("get", "--raw", path)

    def create(self, name: str, data: Body) -> str | None:
        """Create a ConfigMap; returns why not when that is denied."""
        values = [f"--from-literal={key}={value}" for key, value in data.items()]
        answer = self.place.bulkhead.kubectl(
            self.place.kubeconfig, "create", "configmap", name, *values
        )
        return answer.stderr if answer.returncode else None

    @property
    def bundle(self) -> str:
        """What a webhook or an API is verified with, as the API server wants it."""
        return base64.b64encode(self.authority.ca.encode()).decode()


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Called]:
    with running_place(tmp_path_factory.mktemp("place")) as place:
        server = place.switch_on("called")
        yield Called(place, server, place.joined(server))


@pytest.fixture
def delete_afterwards(called: Called) -> Iterator[Callable[[str], None]]:
    """What stands in the way of other tests goes, whatever becomes of its own."""
    names: list[str] = []
    yield names.append
    called.place.kubectl("delete", "--ignore-not-found", *names)


def _workload(image: str, authority: Authority) -> list[Body]:
    """Return a webhook, an HTTPS server and an HTTP server in one pod, and their Service."""
    labels = {"app": _NAME}
    metadata = {"name": _NAME}
    tls = ("--tls-cert-file=/tls/tls.crt", "--tls-private-key-file=/tls/tls.key")
    commands: dict[int, tuple[str, ...]] = {
        _WEBHOOK_PORT: ("webhook", f"--port={_WEBHOOK_PORT}", *tls),
        _HTTPS_PORT: ("netexec", f"--http-port={_HTTPS_PORT}", "--udp-port=-1", *tls),
        _HTTP_PORT: ("netexec", f"--http-port={_HTTP_PORT}", "--udp-port=-1"),
    }
    containers = [
        {
            "name": f"port-{port}",
            "image": image,
            "args": arguments,
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
            "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": True}],
        }
        for port, arguments in commands.items()
    ]
    pod = {
        "containers": containers,
        "volumes": [{"name": "tls", "secret": {"secretName": _NAME}}],
        "terminationGracePeriodSeconds": 1,
    }
    certificate = {"tls.crt": authority.certificate, "tls.key": authority.key}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": certificate},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": labels,
                "ports": [{"name": f"port-{port}", "port": port} for port in commands],
            },
        },
    ]


def _webhook(called: Called) -> Body:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": _NAME},
        "webhooks": [
            {
                "name": "configmaps.canary.example",
                "clientConfig": {
                    "service": {
                        "namespace": "default",
                        "name": _NAME,
                        "port": _WEBHOOK_PORT,
                        "path": "/configmaps",
                    },
                    "caBundle": called.bundle,
                },
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["configmaps"],
                    }
                ],
                # One that cannot be reached would admit nothing.
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }


def _api(called: Called) -> Body:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{_VERSION}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "version": _VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "default", "name": _NAME, "port": _HTTPS_PORT},
            "caBundle": called.bundle,
        },
    }


def test_a_webhook_in_a_pod_admits_one_object_and_denies_another(
    called: Called, delete_afterwards: Callable[[str], None]
) -> None:
    delete_afterwards(f"validatingwebhookconfiguration/{_NAME}")
    called.place.apply(_webhook(called))

    def denied() -> str | None:
        # Until the API server knows of its webhook, it admits.
        reason = called.create("denied", _FORBIDDEN)
        if reason is None:
            called.place.kubectl("delete", "configmap/denied")
        return reason

    assert _DENIAL in until(denied, _TAKES_UP_WITHIN, "a denial")
    delete_afterwards("configmap/admitted")
    assert called.create("admitted", {"key": "value"}) is None
    assert called.server.firewall_counters().accepted == 0


def _names_the_pod(called: Called, path: str) -> bool | None:
    return _NAME in called.get(path) or None


def test_metrics_of_a_kubelet_and_of_its_containers_are_read(called: Called) -> None:
    metrics = f"/api/v1/nodes/{called.node}/proxy/metrics"
    assert f'kubelet_node_name{{node="{called.node}"}} 1' in called.get(metrics)
    for path in (f"{metrics}/cadvisor", f"{metrics}/resource"):
        # A kubelet looks at new containers after some seconds.
        until(partial(_names_the_pod, called, path), _TAKES_UP_WITHIN, path)
    summary = json.loads(called.get(f"/api/v1/nodes/{called.node}/proxy/stats/summary"))
    assert summary["node"]["nodeName"] == called.node
    assert called.server.firewall_counters().accepted == 0


def test_a_service_and_a_pod_answer_what_is_proxied_to_them(called: Called) -> None:
    services = "/api/v1/namespaces/default/services"
    pods = called.place.kubectl("get", "pods", f"--selector=app={_NAME}", "-o", "name")
    pod = pods.strip().removeprefix("pod/")
    for target in (
        f"{services}/https:{_NAME}:{_HTTPS_PORT}",
        f"{services}/http:{_NAME}:{_HTTP_PORT}",
        f"/api/v1/namespaces/default/pods/{pod}:{_HTTP_PORT}",
    ):
        assert called.get(f"{target}/proxy/hostname") == pod
    assert called.server.firewall_counters().accepted == 0


def test_an_api_that_a_pod_adds_to_the_cluster_is_served(
    called: Called, delete_afterwards: Callable[[str], None]
) -> None:
    delete_afterwards(f"apiservice/{_VERSION}.{_GROUP}")
    called.place.apply(_api(called))
    wait = ("wait", "--for=condition=Available", f"--timeout={_TAKES_UP_WITHIN:.0f}s")
    called.place.kubectl(*wait, f"apiservice/{_VERSION}.{_GROUP}")
    assert called.get(f"/apis/{_GROUP}/{_VERSION}/anything").startswith("NOW:")
    assert called.server.firewall_counters().accepted == 0
