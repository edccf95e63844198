"""Decides about the certificates that kubelets ask their cluster for.

A kubelet renews what it has: as the user of its own machine, for exactly that machine. Whatever
differs is denied. Who may join at all was decided before, when the platform signed the first one.
"""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from domain.identifiers import Prefix
from domain.machine import NODE_USER_PREFIX, NODES_GROUP, MachineState
from infra.kubernetes.signing_requests import KUBELET_SIGNERS, SERVING_SIGNER, SigningRequest

_MOST_BYTES: Final = 8192
_LEAST_RSA_BITS: Final = 2048

_COMMON_USAGES: Final = frozenset({"digital signature", "key encipherment"})
_RENEWING: Final = frozenset(
    {MachineState.PROVISIONING, MachineState.ACTIVE, MachineState.RESUMING}
)

# A kubelet may ask before its Node object shows the addresses that it asks for.
_NODE_SHOWS_WITHIN: Final = timedelta(minutes=1)

# Of a message about a request, whose names anybody may have chosen.
_NAME_CHARACTERS: Final = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownNode:
    """A machine of the cluster as the inventory has it.

    Attributes:
        machine_id: its id.
        name: of its node.
        state: of the machine.
        revoked: whether its credentials were revoked.
        reported_addresses: what its server says that it has.
        node_addresses: what its Node object shows.
        others_addresses: those that another machine says that it has, or the control plane has.
    """

    machine_id: str
    name: str
    state: MachineState
    revoked: bool
    reported_addresses: frozenset[str]
    node_addresses: frozenset[str]
    others_addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What becomes of a request, and why; `machine_id` where the one who asks is known."""

    approve: bool
    reason: str
    machine_id: str | None


class _DeniedError(Exception):
    """Says why, for a person."""


class _TooEarlyError(Exception):
    """The Node object does not show yet what decides."""


def judge(request: SigningRequest, nodes: Mapping[str, KnownNode], now: datetime) -> Verdict | None:
    """Decide about a request to one of the kubelets' signers, or of a node; None: not yet.

    Args:
        request: as the API server has it.
        nodes: the machines of the cluster by the names of their nodes.
        now: the moment of the look.
    """
    node = nodes.get(request.username.removeprefix(NODE_USER_PREFIX))
    known = node if node and request.username == NODE_USER_PREFIX + node.name else None
    machine_id = None if known is None else known.machine_id
    try:
        if known is None:
            name = request.username[:_NAME_CHARACTERS]
            _deny(f"{name!r} is no node of this cluster.")
        _check_requestor(request, known)
        _check_content(request, known, now)
    except _TooEarlyError:
        return None
    except _DeniedError as denied:
        return Verdict(approve=False, reason=str(denied), machine_id=machine_id)
    except Exception:  # noqa: BLE001 - whatever a parser says of bytes that anybody chose
        return Verdict(
            approve=False,
            reason="It cannot be read as a certificate request.",
            machine_id=machine_id,
        )
    return Verdict(approve=True, reason="It matches the machine exactly.", machine_id=machine_id)


def audit_id_of(request: SigningRequest, *, approve: bool) -> str:
    """Return the id of the audit line of a decision: the same however often it is made.

    It is a UUIDv7 of the request's birth, so that it stands among the lines of that moment.
    """
    milliseconds = int(datetime.fromisoformat(request.created_at).timestamp() * 1000)
    digest = hashlib.sha256(f"{request.uid} {approve}".encode()).hexdigest()
    return f"{Prefix.AUDIT_EVENT}_{milliseconds:012x}7{digest[:3]}8{digest[3:18]}"


def _check_requestor(request: SigningRequest, node: KnownNode) -> None:
    if NODES_GROUP not in request.groups:
        _deny(f"Whoever asks is not in the group {NODES_GROUP}.")
    if node.revoked:
        _deny("The credentials of the machine were revoked.")
    if node.state not in _RENEWING:
        _deny(f"The machine is {node.state}.")


def _check_content(request: SigningRequest, node: KnownNode, now: datetime) -> None:
    if request.signer not in KUBELET_SIGNERS:
        _deny(f"No node needs a certificate of {request.signer[:_NAME_CHARACTERS]}.")
    serving = request.signer == SERVING_SIGNER
    own_usage = "server auth" if serving else "client auth"
    if own_usage not in request.usages or request.usages - _COMMON_USAGES != {own_usage}:
        _deny(f"It asks for other usages than {own_usage!r}.")
    parsed = _parsed(request.request)
    subject = [(attribute.oid, attribute.value) for attribute in parsed.subject]
    wanted = {
        (NameOID.COMMON_NAME, NODE_USER_PREFIX + node.name),
        (NameOID.ORGANIZATION_NAME, NODES_GROUP),
    }
    if len(subject) != len(wanted) or set(subject) != wanted:
        _deny("Its subject is not exactly that of the machine.")
    _check_key(parsed)
    names = _names_of(parsed)
    if not serving:
        if names:
            _deny("A client certificate has no names beside its subject.")
        return
    if not names:
        _deny("A serving certificate needs a name.")
    # Root on a server chooses what the server reports and what its Node object shows: whoever is
    # first would be taken for the other one.
    if shared := sorted(names & node.others_addresses):
        _deny(
            f"Another machine of the cluster, or its control plane, has {', '.join(shared)} as "
            "well. Delete the machine that is gone, or give one another address."
        )
    allowed = {node.name, *(node.reported_addresses & node.node_addresses)}
    if foreign := sorted(names - allowed):
        is_young = now - datetime.fromisoformat(request.created_at) < _NODE_SHOWS_WITHIN
        if is_young and node.reported_addresses.issuperset(foreign):
            raise _TooEarlyError
        listed = ", ".join(name[:_NAME_CHARACTERS] for name in foreign[:3])
        _deny(f"These names are not the machine's: {listed}.")


def _parsed(pem: bytes) -> x509.CertificateSigningRequest:
    if len(pem) > _MOST_BYTES:
        _deny(f"It is larger than {_MOST_BYTES} bytes.")
    parsed = x509.load_pem_x509_csr(pem)
    if not parsed.is_signature_valid:
        _deny("Its signature is not that of its key.")
    return parsed


def _check_key(parsed: x509.CertificateSigningRequest) -> None:
    key = parsed.public_key()
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey)
        and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    )
    if not strong:
        _deny("Its key must be P-256, P-384 or RSA of 2048 bits or more.")


def _names_of(parsed: x509.CertificateSigningRequest) -> set[str]:
    names: set[str] = set()
    for extension in parsed.extensions:
        if extension.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            _deny("It asks for an extension that no node needs.")
        for name in extension.value:
            match name:
                case x509.DNSName():
                    names.add(name.value)
                case x509.IPAddress() if isinstance(name.value, ipaddress.IPv4Address) or (
                    # Those who verify take an IPv4 address in the form of IPv6 for the former.
                    isinstance(name.value, ipaddress.IPv6Address) and name.value.ipv4_mapped is None
                ):
                    names.add(str(name.value))
                case _:
                    _deny("It asks for a name that is neither a host name nor an address.")
    return names


def _deny(reason: str) -> NoReturn:
    raise _DeniedError(reason)
