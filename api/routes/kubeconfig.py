"""Kubeconfigs: a certificate of the cluster's administrators' group, for a day."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import asyncio
import base64
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Identifier, check_id, not_found
from api.scope import Context, RequestScope, open_scope
from domain.caller import Role
from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.database.queries.cluster import find_cluster, find_endpoint
from infra.openbao.signing import ApiOpenBao

router = APIRouter(prefix="/clusters", tags=["clusters"])


class KubeconfigBody(TypedDict):
    """The contract's Kubeconfig: a file for kubectl."""

    kubeconfig: str


@dataclass(frozen=True, slots=True)
class _Disclosure:
    """A kubeconfig that may be made: its disclosure is in the audit log by now."""

    workspace_id: str
    cluster_id: str
    principal_id: str
    server: str


@router.get("/{id}/kubeconfig", response_model=KubeconfigBody, responses=documented(403, 404, 409))
async def get_kubeconfig(request: Request, context: Context, cluster_id: Identifier) -> Response:
    """Get a kubeconfig of the cluster's administrators, valid for 24 hours."""
    # Committed before anything is signed: what cannot be audited is not disclosed. And no
    # transaction is held while another system is asked.
    async with open_scope(request, context) as scope:
        disclosure = await _audited(scope, cluster_id)
    kubeconfig = await asyncio.to_thread(_make, scope.clients.openbao, disclosure)
    return JSONResponse(
        KubeconfigBody(kubeconfig=kubeconfig), headers={"cache-control": "no-store"}
    )


async def _audited(scope: RequestScope, cluster_id: str) -> _Disclosure:
    scope.require(Role.ADMIN, "cluster.kubeconfig", resource_type="cluster", resource_id=cluster_id)
    cluster = await find_cluster(scope.session, check_id(Prefix.CLUSTER, cluster_id))
    if cluster is None:
        raise not_found(Prefix.CLUSTER)
    endpoint = await find_endpoint(scope.session, cluster_id)
    if cluster.state is not ClusterState.ACTIVE or endpoint is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster is {cluster.state}; only an active one can be reached.",
            metadata={"state": cluster.state},
        )
    scope.audit("cluster.kubeconfig", "cluster", cluster.id)
    return _Disclosure(
        workspace_id=cluster.workspace_id,
        cluster_id=cluster.id,
        principal_id=scope.caller.principal_id,
        server=endpoint.url,
    )


def _make(openbao: ApiOpenBao, disclosure: _Disclosure) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    certificate = openbao.sign_kubeconfig_certificate(
        disclosure.workspace_id,
        disclosure.cluster_id,
        request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode(),
        disclosure.principal_id,
    )
    authority = openbao.authority_of(disclosure.workspace_id, disclosure.cluster_id)
    private_key = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return _render(disclosure, authority, certificate, private_key)


def _render(disclosure: _Disclosure, authority: str, certificate: str, private_key: str) -> str:
    """Write the file. Every value is an id of ours, an address or base64: none needs quotes."""
    return f"""\
apiVersion: v1
kind: Config
clusters:
- name: {disclosure.cluster_id}
  cluster:
    server: {disclosure.server}
    certificate-authority-data: {_embedded(authority)}
users:
- name: {disclosure.principal_id}
  user:
    client-certificate-data: {_embedded(certificate)}
    client-key-data: {_embedded(private_key)}
contexts:
- name: {disclosure.cluster_id}
  context:
    cluster: {disclosure.cluster_id}
    user: {disclosure.principal_id}
current-context: {disclosure.cluster_id}
"""


def _embedded(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()
