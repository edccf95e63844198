"""What the API process asks OpenBao: certificates for kubeconfigs, nodes and its own listener."""

import ipaddress
from typing import Any, Final

import hvac
from hvac import exceptions

from domain.errors import BulkheadError, Reason
from domain.machine import NODE_CERTIFICATE_SECONDS, NODE_TOKEN_ISSUER_USER, NODE_USER_PREFIX
from domain.names import (
    authority_mount_of,
    install_reader_of,
    node_name_of,
    secret_namespace_of,
)
from infra.openbao import authorities, policies
from infra.openbao.answers import certificate_in, read, write
from infra.openbao.authorities import Authority
from infra.openbao.fingerprints import RequestFingerprints
from infra.openbao.marker import StoreMarker
from infra.openbao.session import OpenBaoSession
from infra.openbao.setup import PLATFORM_LEAF_LIFETIME, PLATFORM_MOUNT, PLATFORM_ROLE
from infra.openbao.values import ValueStore
from infra.settings import OpenBaoSettings

# Users and groups that Kubernetes gives a meaning of its own.
_RESERVED_PREFIX: Final = "system:"

# Clients match the alternative names only; without any subject some refuse a certificate.
_PLATFORM_COMMON_NAME: Final = "Bulkhead API"


class ApiOpenBao:
    """The API process's calls, each under a login of the namespace that it concerns.

    Every method raises `BulkheadError` DEPENDENCY_UNAVAILABLE when the server is down, sealed, or
    denies the login.
    """

    def __init__(self, settings: OpenBaoSettings) -> None:
        self._session = OpenBaoSession(settings, policies.API)
        self.values = ValueStore(self._session)
        self.fingerprints = RequestFingerprints(self._session)
        self.marker = StoreMarker(self._session)

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def check(self) -> None:
        """Return when the server answers and knows us; raise otherwise."""
        self.platform_authority()

    def authority_of(self, workspace_id: str, cluster_id: str) -> str:
        """Return the certificate, as PEM, that a client of the cluster's API server trusts.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the cluster has no authority.
        """
        path = f"{authority_mount_of(cluster_id)}/issuer/{Authority.KUBERNETES}/json"
        answer = self._in_workspace(workspace_id, "read an authority", path, None)
        return certificate_in(answer)

    def sign_kubeconfig_certificate(
        self, workspace_id: str, cluster_id: str, csr: str, common_name: str
    ) -> str:
        """Return a client certificate of the administrators' group, valid for 24 hours.

        Args:
            workspace_id: the cluster's workspace.
            cluster_id: the cluster whose API server shall accept it.
            csr: the signing request as PEM; only its P-256 key counts.
            common_name: the user's name in the cluster's audit log: the id of the principal.

        Raises:
            BulkheadError: INVALID_ARGUMENT for a name that Kubernetes reserves;
                FAILED_PRECONDITION when the cluster has no authority.
        """
        if common_name.startswith(_RESERVED_PREFIX):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT, f"Names that start with {_RESERVED_PREFIX} are reserved."
            )
        return self._sign_client(
            workspace_id,
            cluster_id,
            authorities.KUBECONFIG_ROLE,
            {
                "csr": csr,
                "common_name": common_name,
                "ttl": authorities.KUBECONFIG_MAXIMUM_LIFETIME,
            },
        )

    def sign_node_certificate(
        self, workspace_id: str, cluster_id: str, csr: str, machine_id: str
    ) -> str:
        """Return the client certificate of a machine's kubelet, valid for an hour.

        Args:
            workspace_id: the cluster's workspace.
            cluster_id: the cluster whose API server shall accept it.
            csr: the signing request as PEM; only its P-256 key counts.
            machine_id: decides the name.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the cluster has no authority.
        """
        return self._sign_client(
            workspace_id,
            cluster_id,
            authorities.NODE_ROLE,
            {
                "csr": csr,
                "common_name": f"{NODE_USER_PREFIX}{node_name_of(machine_id)}",
                "ttl": NODE_CERTIFICATE_SECONDS,
            },
        )

    def sign_node_token_issuer(self, workspace_id: str, cluster_id: str, csr: str) -> str:
        """Return the client certificate with which the tokens of nodes are minted.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the cluster has no authority.
        """
        return self._sign_client(
            workspace_id,
            cluster_id,
            authorities.NODE_TOKEN_ISSUER_ROLE,
            {
                "csr": csr,
                "common_name": NODE_TOKEN_ISSUER_USER,
                "ttl": authorities.NODE_TOKEN_ISSUER_SECONDS,
            },
        )

    def sign_install_reader(
        self, workspace_id: str, cluster_id: str, csr: str, install_id: str
    ) -> str:
        """Return the client certificate with which one install's pods and logs are read.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the cluster has no authority.
        """
        return self._sign_client(
            workspace_id,
            cluster_id,
            authorities.INSTALL_READER_ROLE,
            {
                "csr": csr,
                "common_name": install_reader_of(install_id),
                "ttl": authorities.INSTALL_READER_SECONDS,
            },
        )

    def platform_authority(self) -> str:
        """Return the platform's root certificate as PEM: what clients of the API trust."""
        answer = self._session.call(
            "read the platform's authority",
            lambda client: read(client, f"{PLATFORM_MOUNT}/issuer/default/json"),
        )
        if answer is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"OpenBao has no mount {PLATFORM_MOUNT}. Set the server up as docs/operations.md "
                "says.",
            )
        return certificate_in(answer)

    def sign_platform_certificate(self, csr: str, names: list[str]) -> str:
        """Return a server certificate of the platform for these host names and addresses.

        Args:
            csr: the signing request as PEM; only its P-256 key counts.
            names: host names and IP addresses, at least one. The certificate lives 30 days.
        """
        addresses = [name for name in names if _is_address(name)]
        answer = self._session.call(
            "sign the API's certificate",
            lambda client: write(
                client,
                f"{PLATFORM_MOUNT}/sign/{PLATFORM_ROLE}",
                {
                    "csr": csr,
                    "common_name": _PLATFORM_COMMON_NAME,
                    "exclude_cn_from_sans": True,
                    "alt_names": ",".join(name for name in names if name not in addresses),
                    "ip_sans": ",".join(addresses),
                    "ttl": PLATFORM_LEAF_LIFETIME,
                },
            ),
        )
        return certificate_in(answer)

    def _sign_client(
        self, workspace_id: str, cluster_id: str, role: str, data: dict[str, Any]
    ) -> str:
        answer = self._in_workspace(
            workspace_id,
            f"sign a certificate of the role {role}",
            f"{authority_mount_of(cluster_id)}/sign/{role}",
            {"exclude_cn_from_sans": True, **data},
        )
        return certificate_in(answer)

    def _in_workspace(
        self, workspace_id: str, operation: str, path: str, data: dict[str, Any] | None
    ) -> dict[str, Any]:
        namespace = secret_namespace_of(workspace_id)

        def request(client: hvac.Client) -> dict[str, Any] | None:
            try:
                return read(client, path) if data is None else write(client, path, data)
            except exceptions.InvalidPath:
                return None

        answer = self._session.call(
            operation, request, namespace=namespace, login_namespace=namespace
        )
        if answer is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The cluster has no certificate authority: it was deleted, or its creation has "
                "not come that far.",
                metadata={"dependency": "openbao"},
            )
        return answer


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
