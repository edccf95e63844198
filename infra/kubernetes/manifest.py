"""Objects as they are sent to an API server, and where each has its place."""

from dataclasses import dataclass, field
from typing import Any, Final

RBAC: Final = "rbac.authorization.k8s.io"
ADMISSION: Final = "admissionregistration.k8s.io"

# The plural in the path of each kind that the platform keeps.
_PLURALS: Final = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}

Subject = dict[str, str]


@dataclass(frozen=True, slots=True)
class KeptObject:
    """One object that the platform keeps.

    Attributes:
        api_version: its group and version, as in a manifest.
        kind: what it is.
        name: what it is called.
        content: everything of it but these and its namespace.
        namespace: where it is, None for one of the whole cluster.
        labels: by which others find it.
        customers_own: made when it is missing and then left alone: the customer may change it.
    """

    api_version: str
    kind: str
    name: str
    content: dict[str, Any] = field(default_factory=dict)
    namespace: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    customers_own: bool = False

    @property
    def path(self) -> str:
        """Where it is at the API server."""
        root = "/apis" if "/" in self.api_version else "/api"
        space = "" if self.namespace is None else f"/namespaces/{self.namespace}"
        return f"{root}/{self.api_version}{space}/{_PLURALS[self.kind]}/{self.name}"

    @property
    def manifest(self) -> dict[str, Any]:
        """The object as it is sent."""
        metadata: dict[str, Any] = {"name": self.name}
        if self.namespace is not None:
            metadata["namespace"] = self.namespace
        if self.labels:
            metadata["labels"] = self.labels
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": metadata,
            **self.content,
        }

    def as_subject(self) -> Subject:
        """Return how a binding names it, if it is a ServiceAccount."""
        assert self.namespace is not None  # noqa: S101 - a ServiceAccount always has one
        return {"kind": self.kind, "name": self.name, "namespace": self.namespace}


def service_account(name: str, namespace: str) -> KeptObject:
    """Return a ServiceAccount."""
    return KeptObject("v1", "ServiceAccount", name, namespace=namespace)


def role(
    name: str, rules: list[dict[str, list[str]]], *, namespace: str | None = None
) -> KeptObject:
    """Return a Role of a namespace, or a ClusterRole."""
    kind = "ClusterRole" if namespace is None else "Role"
    return KeptObject(f"{RBAC}/v1", kind, name, {"rules": rules}, namespace)


def binding(
    name: str,
    *,
    subject: Subject,
    cluster_role: str | None = None,
    role: str | None = None,
    namespace: str | None = None,
) -> KeptObject:
    """Return what gives a subject a role: in a namespace, or everywhere."""
    reference = {
        "apiGroup": RBAC,
        "kind": "ClusterRole" if role is None else "Role",
        "name": role or cluster_role,
    }
    kind = "ClusterRoleBinding" if namespace is None else "RoleBinding"
    content = {"roleRef": reference, "subjects": [subject]}
    return KeptObject(f"{RBAC}/v1", kind, name, content, namespace)


def admission_policy(name: str, policy: dict[str, Any]) -> list[KeptObject]:
    """Return a ValidatingAdmissionPolicy that refuses, in the whole cluster."""
    return [
        KeptObject(f"{ADMISSION}/v1", "ValidatingAdmissionPolicy", name, {"spec": policy}),
        KeptObject(
            f"{ADMISSION}/v1",
            "ValidatingAdmissionPolicyBinding",
            name,
            {"spec": {"policyName": name, "validationActions": ["Deny"]}},
        ),
    ]


def user(name: str) -> Subject:
    """Return how a binding names a user."""
    return {"apiGroup": RBAC, "kind": "User", "name": name}


def group(name: str) -> Subject:
    """Return how a binding names a group."""
    return {"apiGroup": RBAC, "kind": "Group", "name": name}
