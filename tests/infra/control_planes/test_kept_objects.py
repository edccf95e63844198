"""What the platform keeps in a cluster, beside what the customer has there."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from domain.cluster import HostedControlPlane, NetworkProfile
from domain.errors import BulkheadError, Reason
from infra.kubernetes.client import KubernetesClient, Object, administrator_of
from infra.kubernetes.objects import kept_objects
from infra.openbao.authorities import Authority
from tests.infra.control_planes.host import COREDNS_IMAGE, Host, nothing_meanwhile
from tests.infra.control_planes.nodes import Nodes, until

OBJECTS = kept_objects(NetworkProfile.LINUX_BRIDGE, COREDNS_IMAGE)

COREDNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
COREFILE = "/api/v1/namespaces/kube-system/configmaps/coredns"
PROXY_BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bulkhead:kube-proxy"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"

REFUSES_EVERYTHING: Object = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "refuses-everything"},
    "webhooks": [
        {
            "name": "refuses.everything.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": {"service": {"namespace": "default", "name": "nobody", "path": "/"}},
            "rules": [
                {
                    "apiGroups": ["*"],
                    "apiVersions": ["*"],
                    "resources": ["*/*"],
                    "operations": ["CREATE", "UPDATE"],
                }
            ],
        }
    ],
}


@pytest.fixture
def nodes(host: Host, cluster: HostedControlPlane, tmp_path: Path) -> Iterator[Nodes]:
    found = Nodes(host, cluster, tmp_path)
    yield found
    found.close()


def test_a_second_look_changes_no_object(
    host: Host, cluster: HostedControlPlane, nodes: Nodes
) -> None:
    before = _versions(nodes.api)
    host.backend.wait_until_ready(cluster, nothing_meanwhile)
    assert _versions(nodes.api) == before


def test_a_customers_corefile_and_number_of_replicas_stay_and_the_image_does_not(
    host: Host, cluster: HostedControlPlane, nodes: Nodes
) -> None:
    pods = nodes.api.get(COREDNS)["spec"]["template"]
    pods["spec"]["containers"][0]["image"] = "elsewhere"
    # A patch, for the Deployment's controller writes its status at any moment.
    nodes.api.patch(COREDNS, {"spec": {"replicas": 3, "template": pods}})
    nodes.api.patch(COREFILE, {"data": {"Corefile": ". { errors }"}})
    host.backend.wait_until_ready(cluster, nothing_meanwhile)
    found = nodes.api.get(COREDNS)["spec"]
    assert found["replicas"] == 3
    assert found["template"]["spec"]["containers"][0]["image"] == COREDNS_IMAGE
    assert nodes.api.get(COREFILE)["data"]["Corefile"] == ". { errors }"


def test_a_webhook_that_refuses_everything_keeps_no_cluster_from_being_ready(
    host: Host, cluster: HostedControlPlane, nodes: Nodes
) -> None:
    nodes.api.create(WEBHOOKS, REFUSES_EVERYTHING)
    try:
        # The API server watches its webhooks, and asks one in its own time.
        until(lambda: _is_refused(nodes.api))
        nodes.api.delete(PROXY_BINDING)
        host.backend.wait_until_ready(cluster, nothing_meanwhile)
        assert nodes.api.find(PROXY_BINDING) is None
    finally:
        nodes.api.delete(f"{WEBHOOKS}/refuses-everything")
    until(lambda: not _is_refused(nodes.api))
    host.backend.wait_until_ready(cluster, nothing_meanwhile)
    assert nodes.api.find(PROXY_BINDING) is not None


def test_a_cluster_with_a_pod_network_of_its_own_gets_no_dns_from_us() -> None:
    kinds = {kept.kind for kept in kept_objects(NetworkProfile.LINUX_CILIUM, COREDNS_IMAGE)}
    assert "Deployment" not in kinds
    assert "ServiceAccount" in kinds


def test_one_servers_flannel_cannot_touch_another_node(nodes: Nodes) -> None:
    for name in ("own", "others"):
        nodes.add(name)
    flannel = nodes.tokens("own").pod_network
    own, others = (_annotate_as(flannel, nodes, name) for name in ("own", "others"))
    for name in ("own", "others"):
        nodes.remove(name)
    assert own.status_code == 200, own.text
    assert others.status_code == 422
    assert "its own Node object only" in others.text


@pytest.mark.parametrize(
    ("user", "verb", "resource", "name", "allowed"),
    [
        ("bulkhead:node-token-issuer", "create", "serviceaccounts/token", "kube-proxy", True),
        ("bulkhead:node-token-issuer", "create", "serviceaccounts/token", "default", False),
        ("bulkhead:node-token-issuer", "get", "nodes", "any", True),
        ("bulkhead:node-token-issuer", "delete", "nodes", "any", False),
        ("bulkhead:node-token-issuer", "get", "secrets", "any", False),
        ("bulkhead:konnectivity-server", "get", "secrets", "any", False),
        # Nobody approves a kubelet's certificate but the platform.
        (
            "system:node:any",
            "create",
            "certificatesigningrequests/selfnodeclient",
            "",
            False,
        ),
    ],
)
def test_each_of_the_platforms_users_may_do_its_task_and_nothing_else(
    nodes: Nodes, user: str, verb: str, resource: str, name: str, *, allowed: bool
) -> None:
    plural, _, subresource = resource.partition("/")
    group = "certificates.k8s.io" if plural == "certificatesigningrequests" else ""
    review = nodes.api.create(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": ["system:authenticated", "system:nodes"][: 1 + user.startswith("system")],
                "resourceAttributes": {
                    "namespace": "kube-system",
                    "verb": verb,
                    "group": group,
                    "resource": plural,
                    "subresource": subresource,
                    "name": name,
                },
            },
        },
    )
    assert review["status"]["allowed"] is allowed


def test_what_an_api_server_refuses_is_told_apart(host: Host, nodes: Nodes) -> None:
    missing = "/api/v1/namespaces/default/configmaps/missing"
    made: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}}
    configmaps = "/api/v1/namespaces/default/configmaps"
    with pytest.raises(BulkheadError) as not_found:
        nodes.api.get(missing)
    uid = nodes.api.create(configmaps, made)["metadata"]["uid"]
    with pytest.raises(BulkheadError) as exists:
        nodes.api.create(configmaps, made)
    with pytest.raises(BulkheadError) as another:
        nodes.api.delete(f"{configmaps}/made", uid="another")
    assert nodes.api.find(missing) is None
    assert nodes.api.delete(f"{configmaps}/made", uid=uid)
    assert not nodes.api.delete(f"{configmaps}/made")
    assert not_found.value.reason is Reason.NOT_FOUND
    assert exists.value.reason is another.value.reason is Reason.CONFLICT
    with (
        administrator_of(host.openbao, nodes.cluster, "https://127.0.0.1:1") as nowhere,
        pytest.raises(BulkheadError) as unavailable,
    ):
        nowhere.text("/readyz")
    assert unavailable.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def _is_refused(api: KubernetesClient) -> bool:
    """Tell whether anything could be made; nothing is."""
    name = "would-be"
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    try:
        api.apply(f"/api/v1/namespaces/default/configmaps/{name}", body, dry_run=True)
    except BulkheadError:
        return True
    return False


def _annotate_as(token: str, nodes: Nodes, name: str) -> httpx.Response:
    """Change a node's status with a token, as flannel does."""
    authority = nodes.layout.authority(Authority.KUBERNETES)
    return httpx.patch(
        f"{nodes.layout.local_api_url}/api/v1/nodes/{name}/status",
        json={"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "10.6.6.6"}}},
        headers={
            "authorization": f"Bearer {token}",
            "content-type": "application/merge-patch+json",
        },
        verify=ssl.create_default_context(cafile=str(authority)),
        trust_env=False,
        timeout=60,
    )


def _versions(api: KubernetesClient) -> dict[str, str]:
    # Of the others a controller of Kubernetes writes the status.
    static = [
        kept for kept in OBJECTS if kept.kind not in {"Deployment", "ValidatingAdmissionPolicy"}
    ]
    return {kept.path: api.get(kept.path)["metadata"]["resourceVersion"] for kept in static}
