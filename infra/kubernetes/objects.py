"""What the platform keeps in every hosted cluster, beside what Kubernetes makes by itself."""

from typing import Any, Final

from domain.cluster import (
    ADMINISTRATORS_BINDING,
    ADMINISTRATORS_GROUP,
    KUBELET_CLIENT_USER,
    TUNNEL_SERVER_USER,
    NetworkProfile,
)
from domain.machine import (
    NODE_TOKEN_ISSUER_USER,
    NODE_TOKENS_NAMESPACE,
    NODE_USER_PREFIX,
    POD_NETWORK_SERVICE_ACCOUNT,
    PROXY_SERVICE_ACCOUNT,
    TUNNEL_SERVICE_ACCOUNT,
)
from infra.kubernetes.coredns import coredns_objects
from infra.kubernetes.install_namespaces import guarded_labels
from infra.kubernetes.manifest import (
    KeptObject,
    admission_policy,
    binding,
    group,
    role,
    service_account,
    user,
)

# Under this name the API server tells of a token to which Node object it is bound.
_NODE_OF_TOKEN: Final = "authentication.kubernetes.io/node-name"  # noqa: S105 - a name

# Far more than any that is approved.
_MOST_REQUEST_BYTES: Final = 64 * 1024

_POD_NETWORK_USER: Final = (
    f"system:serviceaccount:{NODE_TOKENS_NAMESPACE}:{POD_NETWORK_SERVICE_ACCOUNT}"
)


def kept_objects(profile: NetworkProfile, coredns_image: str) -> list[KeptObject]:
    """Return what the platform keeps in a cluster; none of it depends on the order.

    Args:
        profile: the cluster's pod network; another one than `linux_bridge` brings its own DNS.
        coredns_image: where nodes find it; empty: there is no registry that has it.
    """
    objects = [
        *_rights_of_the_platform(),
        *_rights_of_nodes(),
        *_small_signing_requests(),
        *guarded_labels(),
    ]
    if profile is NetworkProfile.LINUX_BRIDGE:
        objects += _pod_network()
        if coredns_image:
            objects += coredns_objects(coredns_image)
    return objects


def _rights_of_the_platform() -> list[KeptObject]:
    issuer = user(NODE_TOKEN_ISSUER_USER)
    accounts = [TUNNEL_SERVICE_ACCOUNT, PROXY_SERVICE_ACCOUNT, POD_NETWORK_SERVICE_ACCOUNT]
    return [
        binding(
            ADMINISTRATORS_BINDING,
            cluster_role="cluster-admin",
            subject=group(ADMINISTRATORS_GROUP),
        ),
        binding(
            "bulkhead-kubelet-client",
            cluster_role="system:kubelet-api-admin",
            subject=user(KUBELET_CLIENT_USER),
        ),
        # TokenReviews of the agents.
        binding(
            TUNNEL_SERVER_USER,
            cluster_role="system:auth-delegator",
            subject=user(TUNNEL_SERVER_USER),
        ),
        role(NODE_TOKEN_ISSUER_USER, [_rule("", "nodes", "get")]),
        binding(NODE_TOKEN_ISSUER_USER, cluster_role=NODE_TOKEN_ISSUER_USER, subject=issuer),
        role(
            NODE_TOKEN_ISSUER_USER,
            [_rule("", "serviceaccounts/token", "create") | {"resourceNames": accounts}],
            namespace=NODE_TOKENS_NAMESPACE,
        ),
        binding(
            NODE_TOKEN_ISSUER_USER,
            role=NODE_TOKEN_ISSUER_USER,
            subject=issuer,
            namespace=NODE_TOKENS_NAMESPACE,
        ),
    ]


def _rights_of_nodes() -> list[KeptObject]:
    proxy = service_account(PROXY_SERVICE_ACCOUNT, NODE_TOKENS_NAMESPACE)
    return [
        service_account(TUNNEL_SERVICE_ACCOUNT, NODE_TOKENS_NAMESPACE),
        proxy,
        # Tokens are asked for all three whatever the profile; without rights one is worth nothing.
        service_account(POD_NETWORK_SERVICE_ACCOUNT, NODE_TOKENS_NAMESPACE),
        binding(
            "bulkhead:kube-proxy",
            cluster_role="system:node-proxier",
            subject=proxy.as_subject(),
        ),
    ]


def _small_signing_requests() -> list[KeptObject]:
    """Return what keeps a node from filling etcd with what it asks for.

    The platform removes what is too much of one node, so that no request may be large or refuse
    to go: a finalizer would keep it for ever. A kubelet's has 700 bytes and none of the others.
    """
    metadata = ("annotations", "labels", "finalizers", "ownerReferences")
    policy: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["certificates.k8s.io"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["certificatesigningrequests"],
                }
            ]
        },
        "matchConditions": [
            {
                "name": "node",
                "expression": f"request.userInfo.username.startsWith('{NODE_USER_PREFIX}')",
            }
        ],
        "validations": [
            {
                "expression": f"size(object.spec.request) <= {_MOST_REQUEST_BYTES}",
                "message": f"a node's request has {_MOST_REQUEST_BYTES} bytes at most",
            },
            *(
                {
                    "expression": f"!has(object.metadata.{name})",
                    "message": f"a node's request has no {name}",
                }
                for name in metadata
            ),
        ],
    }
    return admission_policy("bulkhead-node-signing-requests", policy)


def _pod_network() -> list[KeptObject]:
    account = service_account(POD_NETWORK_SERVICE_ACCOUNT, NODE_TOKENS_NAMESPACE)
    rules = [_rule("", "nodes", "get", "list", "watch"), _rule("", "nodes/status", "patch")]
    return [
        role("bulkhead:flannel", rules),
        binding("bulkhead:flannel", cluster_role="bulkhead:flannel", subject=account.as_subject()),
        *_own_node_only(),
    ]


def _own_node_only() -> list[KeptObject]:
    """Return what keeps one server's flannel from changing where another node's pods are.

    NodeRestriction does as much for kubelets, and knows nothing of ServiceAccounts.
    """
    name = "bulkhead-flannel-own-node"
    policy: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["UPDATE"],
                    "resources": ["nodes", "nodes/status"],
                }
            ]
        },
        "matchConditions": [
            {"name": "flannel", "expression": f"request.userInfo.username == '{_POD_NETWORK_USER}'"}
        ],
        "validations": [
            {
                "expression": (
                    f"'{_NODE_OF_TOKEN}' in request.userInfo.extra && "
                    f"request.userInfo.extra['{_NODE_OF_TOKEN}'] == [object.metadata.name]"
                ),
                "message": "a server changes its own Node object only",
            }
        ],
    }
    return admission_policy(name, policy)


def _rule(api_group: str, resource: str, *verbs: str) -> dict[str, list[str]]:
    return {"apiGroups": [api_group], "resources": [resource], "verbs": list(verbs)}
