"""Looks at a control plane with the eyes of a client, and gives its administrators their rights."""

import os
import ssl
from types import TracebackType
from typing import Any, Final, Self

import httpx

from domain.cluster import ADMINISTRATORS_BINDING, ADMINISTRATORS_GROUP, HostedControlPlane
from infra.control_planes.certificates import KUBELET_CLIENT_USER, LeafSpec, make_leaf
from infra.control_planes.layout import Layout
from infra.openbao.authorities import Authority
from infra.openbao.client import OpenBao

# Of the certificate with which we look: longer than any wait, and of no use afterwards.
_LIFETIME_SECONDS: Final = 15 * 60

# The only group that has rights before any binding exists. Nobody else gets a certificate of it.
_FIRST_GROUP: Final = "system:masters"

_SPEC: Final = LeafSpec(
    authority=Authority.KUBERNETES,
    common_name="bulkhead:control-planes",
    organization=_FIRST_GROUP,
    usages=("ClientAuth",),
)

# A request that takes longer is asked again: an API server that starts drops some.
_TIMEOUT_SECONDS: Final = 3.0

_OK: Final = 200
_CREATED: Final = 201
_CONFLICT: Final = 409

_RBAC: Final = "rbac.authorization.k8s.io"
_BINDINGS: Final = f"/apis/{_RBAC}/v1/clusterrolebindings"


class ReadinessClient:
    """Asks one API server, as an administrator whose key is in memory only."""

    def __init__(self, openbao: OpenBao, cluster: HostedControlPlane, layout: Layout) -> None:
        key, certificate = make_leaf(
            lambda request, usages: openbao.sign(
                cluster,
                _SPEC.authority,
                request,
                usages=usages,
                lifetime_seconds=_LIFETIME_SECONDS,
            ),
            _SPEC,
        )
        context = ssl.create_default_context(
            cadata=openbao.certificate_of(cluster, Authority.KUBERNETES)
        )
        load_from_memory(context, certificate + key)
        self._http = httpx.Client(
            base_url=f"https://{layout.local_api_host}:{layout.api_port}",
            verify=context,
            trust_env=False,
            timeout=_TIMEOUT_SECONDS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def what_is_missing(self) -> str | None:
        """Return what a client would still have to wait for, in words; None when it is ready.

        Ready means: the API server says so, workloads have the identity that the controller
        manager makes for them, and the administrators are bound to their role.
        """
        try:
            return (
                self._find("/readyz", "the API server to be ready")
                or self._find(
                    "/api/v1/namespaces/default/serviceaccounts/default",
                    "the default ServiceAccount",
                )
                or self._ensure_binding(
                    ADMINISTRATORS_BINDING,
                    role="cluster-admin",
                    subject={"kind": "Group", "name": ADMINISTRATORS_GROUP},
                )
                or self._ensure_binding(
                    "bulkhead-kubelet-client",
                    role="system:kubelet-api-admin",
                    subject={"kind": "User", "name": KUBELET_CLIENT_USER},
                )
            )
        except httpx.TransportError as error:
            return f"the API server to answer ({type(error).__name__})"

    def _find(self, path: str, what: str) -> str | None:
        status = self._http.get(path).status_code
        return None if status == _OK else f"{what} (HTTP {status})"

    def _ensure_binding(self, name: str, *, role: str, subject: dict[str, str]) -> str | None:
        binding: dict[str, Any] = {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": _RBAC, **subject}],
        }
        # Looked for first: admission comes before the conflict, so a customer's webhook that
        # refuses everything would make a cluster that has its bindings look unready.
        if self._http.get(f"{_BINDINGS}/{name}").status_code == _OK:
            return None
        status = self._http.post(_BINDINGS, json=binding).status_code
        return None if status in {_CREATED, _CONFLICT} else f"the binding {name} (HTTP {status})"


def served_certificate(host: str, port: int, timeout_seconds: float = 2.0) -> bytes | None:
    """Return the certificate, as PEM, that a server shows; None when there is no server."""
    try:
        return ssl.get_server_certificate((host, port), timeout=timeout_seconds).encode()
    except OSError:
        return None


def load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a key that never touches a disk: the ssl module takes nothing but names of files."""
    descriptor = os.memfd_create("client-certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
