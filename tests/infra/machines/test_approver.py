"""Which certificates kubelets get: exactly their own."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from domain.identifiers import Prefix, is_id, opaque_part
from domain.machine import MachineState
from infra.kubernetes.signing_requests import CLIENT_SIGNER, SERVING_SIGNER, SigningRequest
from infra.machines.approver import KnownNode, audit_id_of, judge
from tests.infra.machines.requests import request_pem

NAME = "mch-0190d5a7c0de70008000000000000001"
OTHER = "mch-0190d5a7c0de70008000000000000002"
USER = f"system:node:{NAME}"
GROUP = "system:nodes"
ADDRESS = "10.9.0.7"
CLIENT_USAGES = frozenset({"digital signature", "client auth"})
SERVING_USAGES = frozenset({"digital signature", "server auth"})

NODE = KnownNode(
    machine_id="mch_0190d5a7c0de70008000000000000001",
    name=NAME,
    state=MachineState.ACTIVE,
    revoked=False,
    reported_addresses=frozenset({ADDRESS, "10.9.0.8", "10.9.0.10", "::ffff:10.9.0.9"}),
    node_addresses=frozenset({NAME, ADDRESS, "10.9.0.10", "::ffff:10.9.0.9"}),
    others_addresses=frozenset({"10.9.0.10"}),
)

CLIENT = SigningRequest(
    name="csr-1",
    uid="2ef3bb4c-6be2-4f7b-a4a2-0c1a5a8b8f8e",
    signer=CLIENT_SIGNER,
    username=USER,
    groups=frozenset({GROUP, "system:authenticated"}),
    usages=CLIENT_USAGES,
    request=request_pem(USER, GROUP),
    created_at="2026-03-01T12:00:00Z",
    decided=False,
    certificate=None,
    raw={},
)
SERVING = dataclasses.replace(
    CLIENT,
    signer=SERVING_SIGNER,
    usages=SERVING_USAGES,
    request=request_pem(USER, GROUP, names=[NAME, ADDRESS]),
)


LATER = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)


def approves(request: SigningRequest, node: KnownNode = NODE) -> bool:
    other = dataclasses.replace(node, name=OTHER, machine_id="mch_other")
    verdict = judge(request, {node.name: node, OTHER: other}, LATER)
    assert verdict is not None
    assert verdict.reason
    return verdict.approve


@pytest.mark.parametrize("request_", [CLIENT, SERVING], ids=["client", "serving"])
@pytest.mark.parametrize(
    "state", [MachineState.PROVISIONING, MachineState.ACTIVE, MachineState.RESUMING]
)
def test_a_machine_renews_its_own_certificates(
    request_: SigningRequest, state: MachineState
) -> None:
    assert approves(request_, dataclasses.replace(NODE, state=state))
    assert approves(dataclasses.replace(request_, usages=request_.usages | {"key encipherment"}))


@pytest.mark.parametrize("request_", [CLIENT, SERVING], ids=["client", "serving"])
@pytest.mark.parametrize(
    "node",
    [
        dataclasses.replace(NODE, revoked=True),
        dataclasses.replace(NODE, state=MachineState.DELETING),
        dataclasses.replace(NODE, state=MachineState.SUSPENDED),
    ],
)
def test_a_machine_that_was_revoked_or_leaves_renews_nothing(
    request_: SigningRequest, node: KnownNode
) -> None:
    assert not approves(request_, node)


P224 = ec.generate_private_key(ec.SECP224R1())
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the attack
STRONG = rsa.generate_private_key(65537, 2048)
AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)

ATTACKS = {
    "another machine's name": {"request": request_pem(f"system:node:{OTHER}", GROUP)},
    "an extra organization": {"request": request_pem(USER, GROUP, "system:masters")},
    "another organization": {"request": request_pem(USER, "system:masters")},
    "the organization twice": {"request": request_pem(USER, GROUP, GROUP)},
    "no organization": {"request": request_pem(USER)},
    "an authority": {"request": request_pem(USER, GROUP, extensions=[AUTHORITY])},
    "a name in a client certificate": {"request": request_pem(USER, GROUP, names=[NAME])},
    "a weak curve": {"request": request_pem(USER, GROUP, key=P224)},
    "a weak RSA key": {"request": request_pem(USER, GROUP, key=WEAK)},
    "a huge request": {
        "request": request_pem(USER, GROUP, names=[f"{n}.example" for n in range(900)])
    },
    "no request at all": {"request": b"-----BEGIN CERTIFICATE REQUEST-----\nnot\n"},
    "a broken signature": {"request": request_pem(USER, GROUP, key=STRONG).replace(b"A", b"B", 3)},
    "a certificate of a user": {"signer": "kubernetes.io/kube-apiserver-client"},
    "a usage too many": {"usages": CLIENT_USAGES | {"server auth"}},
    "the usage of a code signer": {"usages": frozenset({"code signing"})},
    "no usage": {"usages": frozenset[str]()},
    "a user that is no node": {"username": "alice"},
    "a ServiceAccount": {"username": "system:serviceaccount:default:default"},
    "an unknown node": {"username": "system:node:mch-0190d5a7c0de7000800000000000ffff"},
    "a user named like a node": {"username": NAME},
    "a node without the group": {"groups": frozenset({"system:authenticated"})},
}


@pytest.mark.parametrize("change", ATTACKS.values(), ids=ATTACKS)
def test_a_client_certificate_is_denied_for(change: dict[str, object]) -> None:
    assert not approves(dataclasses.replace(CLIENT, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        [],
        [OTHER],
        [NAME, "kubernetes.default.svc"],
        [NAME, "10.96.0.1"],
        # What verifies takes it for the address that it maps.
        [NAME, "::ffff:10.9.0.9"],
        # Its own by all that it says, and another one's too.
        [NAME, "10.9.0.10"],
        # Reported, but not of the Node object; and the other way round.
        [NAME, "10.9.0.8"],
        ["10.9.0.9"],
        [NAME, "admin@example.com"],
        ["*.example"],
    ],
)
def test_a_serving_certificate_is_denied_for_names_that_are_not_the_machines(
    names: list[str],
) -> None:
    changed = dataclasses.replace(SERVING, request=request_pem(USER, GROUP, names=names))
    assert not approves(changed)


def test_an_address_that_the_node_does_not_show_yet_is_waited_for() -> None:
    early = dataclasses.replace(SERVING, request=request_pem(USER, GROUP, names=[NAME, "10.9.0.8"]))
    assert judge(early, {NAME: NODE}, LATER - timedelta(minutes=4, seconds=1)) is None
    assert not approves(early)
    foreign = dataclasses.replace(SERVING, request=request_pem(USER, GROUP, names=["10.9.0.9"]))
    verdict = judge(foreign, {NAME: NODE}, LATER - timedelta(minutes=5))
    assert verdict is not None
    assert not verdict.approve


def test_a_decision_has_one_audit_line_among_those_of_its_time() -> None:
    denied, approved = (audit_id_of(CLIENT, approve=approve) for approve in (False, True))
    assert denied != approved
    assert denied == audit_id_of(CLIENT, approve=False)
    for event_id in (denied, approved):
        assert is_id(Prefix.AUDIT_EVENT, event_id)
        born = datetime.fromtimestamp(int(opaque_part(event_id)[:12], 16) / 1000, UTC)
        assert born == datetime(2026, 3, 1, 12, tzinfo=UTC)
