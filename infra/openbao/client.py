"""What a worker asks OpenBao: a workspace's space, a cluster's authorities, keys and leaves."""

import base64
import contextlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, TypeVar

import hvac
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hvac import exceptions

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import (
    authority_mount_of,
    cluster_secret_path_of,
    secret_namespace_of,
    stack_secret_path_of,
)
from infra.openbao import authorities, policies
from infra.openbao.answers import certificate_in, listing, read, write
from infra.openbao.authorities import Authority
from infra.openbao.install_vault import InstallVault
from infra.openbao.marker import StoreMarker
from infra.openbao.session import OpenBaoSession
from infra.openbao.values import ValueStore
from infra.settings import OpenBaoSettings

_T = TypeVar("_T")

_SERVICE_ACCOUNT: Final = "service-account"
_ENCRYPTION: Final = "encryption"
_SIGNER: Final = "controller-manager-signer"

# Of one process, against each other: as many workspaces can be set up at the same time.
_SPACE_LOCKS: Final = 32

# What the API server's `secretbox` provider takes.
_ENCRYPTION_KEY_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterKeys:
    """The keys that a cluster's processes need as files, and OpenBao keeps. Never printed.

    Attributes:
        service_account: PEM private key that signs ServiceAccount tokens.
        encryption: base64 of the key that encrypts Secrets in etcd.
        signer_key: PEM private key with which the controller manager signs node certificates.
        signer_certificate: its certificate, an intermediate of the Kubernetes root.
    """

    service_account: str
    encryption: str
    signer_key: str
    signer_certificate: str

    def __repr__(self) -> str:
        return "ClusterKeys(...)"


class OpenBao:
    """A worker's calls. Each may be repeated, and finishes what an earlier one left half-made.

    Every method raises `BulkheadError` DEPENDENCY_UNAVAILABLE when the server is down, sealed, or
    denies the login.
    """

    def __init__(self, settings: OpenBaoSettings) -> None:
        self._session = OpenBaoSession(settings, policies.WORKER)
        self.values = ValueStore(self._session)
        self.marker = StoreMarker(self._session)
        self.installs = InstallVault(self._session)
        self._space_locks = [Lock() for _ in range(_SPACE_LOCKS)]

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def ensure_secret_space(self, workspace_id: str) -> None:
        """Make the workspace's namespace, its mounts, and our processes' logins there."""
        # Two at once in one namespace make OpenBao answer 500: clusters of a new workspace are
        # often asked for together. Attempts of another process meet rarely, and are tried again.
        with self._space_locks[hash(workspace_id) % _SPACE_LOCKS]:
            self._fill_secret_space(secret_namespace_of(workspace_id))

    def ensure_authorities(self, cluster: HostedControlPlane) -> None:
        """Make the cluster's engine with its three roots and roles, and the cluster's own keys."""
        mount = authority_mount_of(cluster.cluster_id)

        def fill(client: hvac.Client) -> None:
            engine: dict[str, object] = {
                "type": "pki",
                "config": {"max_lease_ttl": authorities.ROOT_LIFETIME},
            }
            _ensure_mount(client, mount, engine)
            known = _issuer_names(client, mount)
            for authority in Authority:
                if authority not in known:
                    _make_root(client, mount, authority, cluster.cluster_id)
            for name, role in authorities.roles().items():
                write(client, f"{mount}/roles/{name}", role)

        self._call("make a cluster's authorities", fill, cluster)
        self._call("make a cluster's keys", lambda client: _ensure_keys(client, cluster), cluster)

    def certificate_of(self, cluster: HostedControlPlane, authority: Authority) -> str:
        """Return a root's certificate as PEM."""
        path = f"{authority_mount_of(cluster.cluster_id)}/issuer/{authority}/json"
        answer = self._call("read an authority", lambda client: read(client, path), cluster)
        if answer is None:
            raise _authorities_missing()
        return certificate_in(answer)

    def keys_of(self, cluster: HostedControlPlane) -> ClusterKeys:
        """Return the cluster's own keys.

        Raises:
            BulkheadError: FAILED_PRECONDITION when they were never made, or were removed.
        """

        def read_all(client: hvac.Client) -> ClusterKeys:
            service_account, encryption, signer = (
                _read_key(client, cluster, name)
                for name in (_SERVICE_ACCOUNT, _ENCRYPTION, _SIGNER)
            )
            if service_account is None or encryption is None or signer is None:
                raise _authorities_missing()
            return ClusterKeys(
                service_account=service_account["key"],
                encryption=encryption["key"],
                signer_key=signer["key"],
                signer_certificate=signer["certificate"],
            )

        return self._call("read a cluster's keys", read_all, cluster)

    def sign(
        self,
        cluster: HostedControlPlane,
        authority: Authority,
        request_pem: str,
        *,
        usages: Iterable[str],
        lifetime_seconds: int,
    ) -> str:
        """Return the certificate for a signing request, its subject and names taken as they are.

        Args:
            cluster: whose authority signs.
            authority: which of its roots.
            request_pem: the signing request; its key stays where it was made.
            usages: `ClientAuth`, `ServerAuth` or both.
            lifetime_seconds: at most 100 days.
        """
        path = f"{authority_mount_of(cluster.cluster_id)}/issuer/{authority}/sign-verbatim/"
        data: dict[str, object] = {
            "csr": request_pem,
            "ttl": f"{lifetime_seconds}s",
            "key_usage": ["DigitalSignature"],
            # Only the request's own list counts here: a role's is not looked at.
            "ext_key_usage": list(usages),
        }
        answer = self._call(
            "sign a certificate",
            lambda client: write(client, path + authorities.LEAF_ROLE, data),
            cluster,
        )
        return certificate_in(answer)

    def remove_authorities(self, cluster: HostedControlPlane) -> None:
        """Remove the cluster's engine and keys; what is not there is fine."""

        def remove(client: hvac.Client) -> None:
            for name in _key_names(client, cluster):
                client.delete(f"kv/metadata/{cluster_secret_path_of(cluster.cluster_id, name)}")
            try:
                client.delete(f"sys/mounts/{authority_mount_of(cluster.cluster_id)}")
            except exceptions.InvalidPath:
                return  # The workspace has no namespace (any more).

        self._call("remove a cluster's authorities", remove, cluster)

    def find_leftovers(self, cluster: HostedControlPlane) -> list[str]:
        """Return what is still there of the cluster, as names for a person."""

        def find(client: hvac.Client) -> list[str]:
            found = [f"kv entry {name}" for name in _key_names(client, cluster)]
            mount = authority_mount_of(cluster.cluster_id)
            if _has_mount(client, mount):
                found.append(f"mount {mount}")
            return found

        return self._call("look for a cluster's authorities", find, cluster)

    def ensure_stack_secret(
        self, workspace_id: str, stack_id: str, name: str, make: Callable[[], str]
    ) -> str:
        """Return one of a stack's own secrets, made when there is none yet."""
        path = f"kv/data/{stack_secret_path_of(stack_id, name)}"

        def ensure(client: hvac.Client) -> str:
            found = read(client, path)
            if found is None or found["data"] is None:
                # Create only: of two attempts at once the first one's value stays, for both.
                with contextlib.suppress(exceptions.InvalidRequest):
                    write(client, path, {"data": {"value": make()}, "options": {"cas": 0}})
                found = read(client, path)
            if found is None or found["data"] is None:
                raise BulkheadError(
                    Reason.DEPENDENCY_UNAVAILABLE, "A stack's secret could not be kept."
                )
            return str(found["data"]["value"])

        namespace = secret_namespace_of(workspace_id)
        return self._session.call("keep a stack's secret", ensure, namespace=namespace)

    def remove_stack_secret(self, workspace_id: str, stack_id: str, name: str) -> None:
        """Remove one of a stack's own secrets; what is not there is fine."""
        path = f"kv/metadata/{stack_secret_path_of(stack_id, name)}"

        def remove(client: hvac.Client) -> None:
            with contextlib.suppress(exceptions.InvalidPath):
                client.delete(path)

        namespace = secret_namespace_of(workspace_id)
        self._session.call("remove a stack's secret", remove, namespace=namespace)

    def _fill_secret_space(self, namespace: str) -> None:
        # The root namespace's own logins are the one place that knows our processes' keys.
        keys = self._session.call("read our logins", _read_public_keys)
        self._session.call(
            "make a namespace", lambda client: write(client, f"sys/namespaces/{namespace}", {})
        )

        def fill(client: hvac.Client) -> None:
            _ensure_mount(client, "kv", {"type": "kv", "options": {"version": "2"}})
            _ensure_mount(
                client, policies.SECRETS_MOUNT, {"type": "kv", "options": {"version": "2"}}
            )
            _ensure_mount(client, "transit", {"type": "transit"})
            key = f"transit/keys/{policies.FINGERPRINTS_KEY}"
            if read(client, key) is None:
                write(client, key, {"type": "hmac", "key_size": 32})
            for login in policies.workspace_logins():
                _ensure_login(client, login, namespace, keys[login.principal])

        self._session.call("set up a namespace", fill, namespace=namespace)

    def _call(
        self,
        operation: str,
        request: Callable[[hvac.Client], _T],
        cluster: HostedControlPlane,
    ) -> _T:
        namespace = secret_namespace_of(cluster.workspace_id)
        return self._session.call(operation, request, namespace=namespace)


def _read_public_keys(client: hvac.Client) -> dict[str, str]:
    keys: dict[str, str] = {}
    for login in policies.workspace_logins():
        configuration = read(client, f"auth/{login.principal}/config")
        if configuration is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"OpenBao has no login for the {login.principal} process "
                f"(auth/{login.principal}). Set the server up as docs/operations.md says.",
            )
        keys[login.principal] = str(configuration["jwt_validation_pubkeys"][0])
    return keys


def _ensure_login(
    client: hvac.Client, login: policies.Login, namespace: str, public_key_pem: str
) -> None:
    name = login.principal
    write(client, f"sys/policies/acl/{name}", {"policy": login.policy})
    _write_unless_in_use(client, f"sys/auth/{name}", {"type": "jwt"})
    write(client, f"auth/{name}/config", policies.login_configuration(name, public_key_pem))
    role = policies.login_role(name, audience=namespace, policy=name, token_ttl=login.token_ttl)
    write(client, f"auth/{name}/role/{name}", role)


def _write_unless_in_use(client: hvac.Client, path: str, data: dict[str, object]) -> None:
    """Mount something; an answer of 400 is fine when reading back finds it mounted."""
    try:
        write(client, path, data)
    except exceptions.InvalidRequest:
        if read(client, path) is None:
            raise


def _ensure_mount(client: hvac.Client, mount: str, engine: dict[str, object]) -> None:
    _write_unless_in_use(client, f"sys/mounts/{mount}", engine)


def _has_mount(client: hvac.Client, mount: str) -> bool:
    try:
        return read(client, f"sys/mounts/{mount}") is not None
    except exceptions.InvalidRequest:
        return False


def _issuer_names(client: hvac.Client, mount: str) -> set[str]:
    issuers = listing(client, f"{mount}/issuers").get("key_info", {})
    return {facts["issuer_name"] for facts in issuers.values()}


def _make_root(client: hvac.Client, mount: str, authority: Authority, cluster_id: str) -> None:
    try:
        write(
            client,
            f"{mount}/issuers/generate/root/internal",
            authorities.root_request(authority, cluster_id),
        )
    except exceptions.InvalidRequest:
        # Another attempt that still runs may have made it meanwhile; names are unique.
        if authority not in _issuer_names(client, mount):
            raise


def _ensure_keys(client: hvac.Client, cluster: HostedControlPlane) -> None:
    _ensure_key(client, cluster, _SERVICE_ACCOUNT, lambda: {"key": _private_key()})
    _ensure_key(
        client,
        cluster,
        _ENCRYPTION,
        lambda: {"key": base64.b64encode(secrets.token_bytes(_ENCRYPTION_KEY_BYTES)).decode()},
    )
    _ensure_key(client, cluster, _SIGNER, lambda: _make_signer(client, cluster))


def _make_signer(client: hvac.Client, cluster: HostedControlPlane) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"node-signer {cluster.cluster_id}"
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    mount = authority_mount_of(cluster.cluster_id)
    answer = write(
        client,
        f"{mount}/issuer/{Authority.KUBERNETES}/sign-intermediate",
        {
            "csr": request,
            "common_name": name,
            "ttl": authorities.SIGNER_LIFETIME,
            "max_path_length": 0,
            "exclude_cn_from_sans": True,
        },
    )
    return {"key": _pem(key), "certificate": certificate_in(answer)}


def _ensure_key(
    client: hvac.Client,
    cluster: HostedControlPlane,
    name: str,
    make: Callable[[], dict[str, str]],
) -> None:
    if _read_key(client, cluster, name) is not None:
        return
    path = f"kv/data/{cluster_secret_path_of(cluster.cluster_id, name)}"
    try:
        # Create only: of two attempts at once the first one's key stays, for both.
        write(client, path, {"data": make(), "options": {"cas": 0}})
    except exceptions.InvalidRequest:
        if _read_key(client, cluster, name) is None:
            raise


def _read_key(client: hvac.Client, cluster: HostedControlPlane, name: str) -> dict[str, Any] | None:
    answer = read(client, f"kv/data/{cluster_secret_path_of(cluster.cluster_id, name)}")
    return None if answer is None else answer["data"]


def _key_names(client: hvac.Client, cluster: HostedControlPlane) -> list[str]:
    folder = cluster_secret_path_of(cluster.cluster_id, "")
    return list(listing(client, f"kv/metadata/{folder}").get("keys", []))


def _private_key() -> str:
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _authorities_missing() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "The cluster's certificate authorities do not exist: it was deleted, or its creation has "
        "not come that far.",
        metadata={"dependency": "openbao"},
    )
