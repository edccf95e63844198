"""CertificateSigningRequests of kubelets: found, approved and denied."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from domain.errors import BulkheadError, Reason
from domain.machine import NODE_USER_PREFIX
from infra.kubernetes.client import KubernetesClient, Object

CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER: Final = "kubernetes.io/kubelet-serving"
# The signers whose requests are ours to decide, whoever asks. Of every other one, those of nodes
# are: no node needs any.
KUBELET_SIGNERS: Final = (CLIENT_SIGNER, SERVING_SIGNER)

_REQUESTS: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningRequest:
    """One request as found.

    Attributes:
        name: of the object.
        uid: of the object.
        signer: whose signature is asked for.
        username: who asks, as the API server authenticated it.
        groups: the groups of whoever asks.
        usages: what the certificate shall be good for.
        request: the request itself, PEM as it was given.
        created_at: ISO 8601.
        decided: whether anybody has approved or denied it.
        certificate: what was issued, as PEM; None before.
        raw: the object, to write the decision into.
    """

    name: str
    uid: str
    signer: str
    username: str
    groups: frozenset[str]
    usages: frozenset[str]
    request: bytes
    created_at: str
    decided: bool
    certificate: bytes | None
    raw: Object


def list_requests(client: KubernetesClient) -> list[SigningRequest]:
    """Return all requests to the signers of kubelets, and whatever else a node asks for."""
    requests = map(_request_of, client.list_all(_REQUESTS))
    return [
        request
        for request in requests
        if request.signer in KUBELET_SIGNERS or request.username.startswith(NODE_USER_PREFIX)
    ]


def decide(
    client: KubernetesClient, request: SigningRequest, *, approve: bool, message: str
) -> bool:
    """Approve or deny a request; return False when it is gone or somebody was faster."""
    status = dict(request.raw.get("status") or {})
    status["conditions"] = [
        *status.get("conditions", []),
        {
            "type": "Approved" if approve else "Denied",
            "status": "True",
            "reason": "MachineInventory",
            "message": message,
        },
    ]
    try:
        # Kubernetes lets anybody name a request `a?b`.
        path = f"{_REQUESTS}/{quote(request.name, safe='')}/approval"
        client.replace(path, {**request.raw, "status": status})
    except BulkheadError as error:
        if error.reason in {Reason.NOT_FOUND, Reason.CONFLICT}:
            return False
        raise
    return True


def remove(client: KubernetesClient, requests: Sequence[SigningRequest]) -> None:
    """Remove requests, each only while it is still the one that was found."""
    for request in requests:
        try:
            client.delete(f"{_REQUESTS}/{quote(request.name, safe='')}", uid=request.uid)
        except BulkheadError as error:
            if error.reason is not Reason.CONFLICT:
                raise


def undecided_of(client: KubernetesClient, username: str) -> list[SigningRequest]:
    """Return the requests of one user that wait for a decision."""
    return [
        request
        for request in list_requests(client)
        if request.username == username and not request.decided
    ]


def _request_of(item: Object) -> SigningRequest:
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    certificate = status.get("certificate")
    return SigningRequest(
        name=metadata["name"],
        uid=metadata["uid"],
        signer=spec["signerName"],
        username=spec.get("username", ""),
        groups=frozenset(spec.get("groups", [])),
        usages=frozenset(spec.get("usages", [])),
        request=_decoded(spec["request"]),
        created_at=metadata["creationTimestamp"],
        decided=any(
            condition["type"] in {"Approved", "Denied", "Failed"}
            for condition in status.get("conditions", [])
        ),
        certificate=None if certificate is None else _decoded(certificate),
        raw=item,
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
