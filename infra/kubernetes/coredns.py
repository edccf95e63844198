"""CoreDNS in a cluster whose pods find Services by the platform's own DNS."""

from typing import Any, Final

from domain.cluster import CLUSTER_DNS, CLUSTER_DOMAIN
from infra.kubernetes.manifest import KeptObject, binding, role, service_account

_NAMESPACE: Final = "kube-system"
_NAME: Final = "coredns"
_ROLE: Final = "system:coredns"

# By this name and label charts and tools look for a cluster's DNS, whatever serves it.
_SERVICE: Final = "kube-dns"
_LABELS: Final = {"k8s-app": "kube-dns"}

# Any that owns nothing.
_USER_ID: Final = 65532

_COREFILE: Final = f"""\
.:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}}
"""


def coredns_objects(image: str) -> list[KeptObject]:
    """Return CoreDNS, its rights and its Service.

    How many there are and what is in the Corefile is the customer's to change.

    Args:
        image: its full reference at the platform's registry.
    """
    account = service_account(_NAME, _NAMESPACE)
    watch = ["list", "watch"]
    core = ["endpoints", "services", "pods", "namespaces"]
    rules = [
        {"apiGroups": [""], "resources": core, "verbs": watch},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
    ]
    return [
        account,
        role(_ROLE, rules),
        binding(_ROLE, cluster_role=_ROLE, subject=account.as_subject()),
        KeptObject(
            "v1",
            "ConfigMap",
            _NAME,
            {"data": {"Corefile": _COREFILE}},
            _NAMESPACE,
            customers_own=True,
        ),
        _deployment(image),
        _service(),
    ]


def _deployment(image: str) -> KeptObject:
    # No number of replicas: it is 1 until the customer says otherwise.
    spec = {
        "selector": {"matchLabels": _LABELS},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": {"metadata": {"labels": _LABELS}, "spec": _pod(image)},
    }
    return KeptObject("apps/v1", "Deployment", _NAME, {"spec": spec}, _NAMESPACE)


def _pod(image: str) -> dict[str, Any]:
    return {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-cluster-critical",
        # The server's own, or every question about another domain would come back to itself.
        "dnsPolicy": "Default",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER_ID,
            "runAsGroup": _USER_ID,
            # Otherwise port 53 would need a capability, which only root is given.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}],
        },
        "containers": [_container(image)],
        "volumes": [
            {
                "name": "config",
                "configMap": {
                    "name": _NAME,
                    "items": [{"key": "Corefile", "path": "Corefile"}],
                },
            }
        ],
    }


def _container(image: str) -> dict[str, Any]:
    return {
        "name": _NAME,
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {
            "limits": {"memory": "170Mi"},
            "requests": {"cpu": "50m", "memory": "70Mi"},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": 8080},
            "initialDelaySeconds": 30,
            "timeoutSeconds": 5,
            "failureThreshold": 5,
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _service() -> KeptObject:
    spec = {
        "clusterIP": CLUSTER_DNS,
        "selector": _LABELS,
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    }
    labels = {**_LABELS, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    content = {"spec": spec}
    return KeptObject("v1", "Service", _SERVICE, content, _NAMESPACE, labels=labels)
