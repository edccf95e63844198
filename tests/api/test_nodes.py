"""The protocol of servers: one exchange of a token, then signatures of the server's own key."""

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from domain.names import node_name_of
from domain.tokens import TokenKind, new_token
from tests.api.gate import JSON, NODE_URL, PROGRAM, Gate, Person, a_token_of_nobody
from tests.api.own_server import OwnServer, csr_of, new_bootstrap, new_machine

P256 = ec.SECP256R1()
# The most that a request may take on a busy machine, and look like an offset of a clock.
TAKES_SECONDS = 10


@pytest.fixture(scope="module")
async def person(gate: Gate) -> Person:
    return gate.new_person()


@pytest.fixture(scope="module")
async def cluster(gate: Gate, person: Person) -> JSON:
    return await gate.new_cluster_with_authorities(person)


def error_of(answer: Any) -> JSON:  # noqa: ANN401 - an answer of httpx
    body: JSON = answer.json()
    assert body["success"] is False
    found: JSON = body["errors"][0]
    return found


async def test_a_token_becomes_a_machine_and_its_certificate(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    server = OwnServer(gate)
    answer = await server.register(bootstrap["token"])
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    node = node_name_of(told["machine_id"])
    assert (told["node_name"], told["cluster_id"]) == (node, cluster["id"])
    leaf, authority = (
        x509.load_pem_x509_certificate(base64.b64decode(told[name]))
        for name in ("certificate", "cluster_authority")
    )
    leaf.verify_directly_issued_by(authority)
    assert leaf.public_key() == server.key.public_key()
    assert [str(part.value) for part in leaf.subject] == ["system:nodes", f"system:node:{node}"]
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=1)
    assert told["platform_url"] == NODE_URL
    assert told["tunnel_port"] == told["cluster_api_port"] + 3

    operations = (
        await person.get(
            "/v1/operations", params={"owner_type": "machine", "owner_id": told["machine_id"]}
        )
    ).json()["data"]
    assert [one["metadata"]["type"] for one in operations] == ["machine.create"]
    assert operations[0]["metadata"]["cluster_id"] == cluster["id"]
    assert await gate.workflow(operations[0]) is not None
    used = await person.get(f"/v1/clusters/{cluster['id']}/worker_bootstraps/{bootstrap['id']}")
    assert used.json()["machine_id"] == told["machine_id"]
    assert used.json()["used_at"] is not None
    assert told["machine_id"] in used.json()["revoke_effect"]
    machine = (await person.get(f"/v1/machines/{told['machine_id']}")).json()
    # Loopback and the addresses of pods tell no server from another.
    assert machine["addresses"] == ["10.20.0.7"]
    assert (machine["state"], machine["stage"]) == ("PROVISIONING", "provisioned")


async def test_a_shell_gets_lines_instead_of_json(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    answer = await OwnServer(gate).register(bootstrap["token"], accept="text/plain")
    assert answer.status_code == 201
    lines = [line.split(" ", 1) for line in answer.text.splitlines()]
    told = dict(lines)
    assert base64.b64decode(told["certificate"]).startswith(b"-----BEGIN CERTIFICATE-----")
    assert told["registry"] == ""
    name, sha256, size, mode, path = told["artifact"].split(" ")
    assert (name, mode, path) == ("kubectl", "0755", "/opt/bulkhead/bin/kubectl")
    artifact = await gate.client.get(f"/v1/artifacts/{sha256}")
    assert artifact.content == PROGRAM
    assert int(size) == len(PROGRAM)
    assert "immutable" in artifact.headers["cache-control"]
    unknown = await gate.client.get(f"/v1/artifacts/{'0' * 64}")
    assert unknown.status_code == 404
    again = await OwnServer(gate).register(bootstrap["token"], accept="text/plain")
    assert error_of(again)["metadata"]["reason"] == "UNAUTHENTICATED"


async def test_of_sixteen_uses_at_the_same_time_one_wins(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    before = gate.count("machines", person.workspace)
    answers = await asyncio.gather(
        *(OwnServer(gate).register(bootstrap["token"]) for _ in range(16))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 15
    assert gate.count("machines", person.workspace) == before + 1
    denied = ("node.register", "denied", bootstrap["id"])
    assert gate.audit(person.workspace).count(denied) == 15


async def test_a_token_that_is_tried_all_the_time_is_counted_instead_of_filling_the_audit_log(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    server = OwnServer(gate)
    assert (await server.register(bootstrap["token"])).status_code == 201
    for _ in range(10):
        answers = await asyncio.gather(*(server.register(bootstrap["token"]) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {401}
    found = await person.get(
        "/v1/audit_events", params={"action": "node.register", "outcome": "denied", "limit": 100}
    )
    counts = [
        line["details"]["times_within_the_hour"]
        for line in found.json()["data"]
        if line["resource_id"] == bootstrap["id"]
    ]
    assert sorted(counts) == [*range(1, 21), 32, 64]


@pytest.mark.parametrize("verb", ["delete", "suspend"])
async def test_who_joins_while_the_cluster_goes_is_a_machine_of_it_or_nobody(
    gate: Gate, verb: str
) -> None:
    person = gate.new_person()
    for turn in range(3):
        cluster = await gate.new_cluster_with_authorities(person)
        bootstraps = [await new_bootstrap(person, cluster) for _ in range(3)]

        async def go(cluster: JSON = cluster, turn: int = turn) -> httpx.Response:
            await asyncio.sleep(turn * 0.015)
            path = f"/v1/clusters/{cluster['id']}" + (":suspend" if verb == "suspend" else "")
            method = "POST" if verb == "suspend" else "DELETE"
            return await person.call(method, path, headers={"If-Match": cluster["etag"]})

        gone, *joined = await asyncio.gather(
            go(), *(OwnServer(gate).register(one["token"]) for one in bootstraps)
        )
        assert {answer.status_code for answer in joined} <= {201, 409}
        winners = [answer.json()["machine_id"] for answer in joined if answer.is_success]
        found = (await person.get("/v1/machines", params={"cluster_id": cluster["id"]})).json()
        assert sorted(one["id"] for one in found["data"]) == sorted(winners)
        assert gone.status_code in {202, 409}, gone.text
        # A cluster with machines can be suspended, and never be deleted.
        assert verb == "suspend" or gone.is_success == (not winners)
        if gone.is_success:
            late = [await OwnServer(gate).register(one["token"]) for one in bootstraps]
            assert {answer.status_code for answer in late} <= {401, 409}
            after = await person.get("/v1/machines", params={"cluster_id": cluster["id"]})
            assert after.json()["data"] == found["data"]


async def test_a_token_that_is_not_good_answers_401(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    expired, used = [await new_bootstrap(person, cluster) for _ in range(2)]
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE worker_bootstraps SET expires_at = now() WHERE id = %s", (expired["id"],)
        )
    assert (await OwnServer(gate).register(used["token"])).status_code == 201
    unknown = new_token(TokenKind.WORKER_BOOTSTRAP)
    mistyped = used["token"][:-1] + ("a" if used["token"][-1] != "a" else "b")
    for token in (expired["token"], used["token"], unknown, mistyped, person.token, ""):
        answer = await OwnServer(gate).register(token)
        assert answer.status_code == 401
        assert not token or token not in answer.text
    audit = gate.audit(person.workspace)
    for bootstrap in (expired, used):
        assert ("node.register", "denied", bootstrap["id"]) in audit
    # A person's own token, which is of no use here.
    assert ("node.register", "denied", person.workspace) in audit
    for token in (used["token"], unknown):
        stranger = Person("", person.workspace, token, gate.client)
        assert (await stranger.get("/v1/clusters")).status_code == 401


def wrongly_signed() -> str:
    """Take a good request and change a byte of its signature."""
    der = x509.load_pem_x509_csr(
        base64.b64decode(csr_of(ec.generate_private_key(P256)))
    ).public_bytes(serialization.Encoding.DER)
    broken = der[:-1] + bytes([der[-1] ^ 1])
    body = base64.encodebytes(broken).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    return base64.b64encode(pem.encode()).decode()


def ed25519_request() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(ed25519.Ed25519PrivateKey.generate(), None)
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def p256(*extensions: x509.ExtensionType, **names: str) -> Callable[[], str]:
    return lambda: csr_of(ec.generate_private_key(P256), *extensions, **names)


BAD_REQUESTS: dict[str, Callable[[], str]] = {
    "another machine's name": p256(common_name=f"system:node:mch-{'0' * 32}"),
    "an administrator's name": p256(common_name="kubernetes-admin"),
    "an extra organisation": p256(organization="system:masters"),
    "the nodes' organisation": p256(organization="system:nodes"),
    "CA:TRUE": p256(x509.BasicConstraints(ca=True, path_length=None)),
    "a DNS name": p256(x509.SubjectAlternativeName([x509.DNSName("kubernetes.default")])),
    "a usage": p256(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
    "RSA 1024": lambda: csr_of(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - the point
    "RSA 2048": lambda: csr_of(rsa.generate_private_key(65537, 2048)),
    "secp224r1": lambda: csr_of(ec.generate_private_key(ec.SECP224R1())),
    "secp192r1": lambda: csr_of(ec.generate_private_key(ec.SECP192R1())),
    "secp256k1": lambda: csr_of(ec.generate_private_key(ec.SECP256K1())),
    "ed25519": ed25519_request,
    "huge": p256(
        x509.SubjectAlternativeName([x509.DNSName(f"n{number}.test") for number in range(900)])
    ),
    "padded to hugeness": lambda: base64.b64encode(
        base64.b64decode(csr_of(ec.generate_private_key(P256))) + b"\n" * 9000
    ).decode(),
    "another's signature": wrongly_signed,
    "garbage": lambda: base64.b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n").decode(),
    "no base64": lambda: "{}",
    "nothing": lambda: "",
}


async def test_a_request_for_more_than_a_nodes_certificate_is_refused_and_uses_nothing_up(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    for name, make in BAD_REQUESTS.items():
        answer = await OwnServer(gate).register(bootstrap["token"], make())
        assert answer.status_code == 400, name
        assert error_of(answer)["path"] == ["body", "csr"], name
    without_subject = csr_of(ec.generate_private_key(P256), common_name="")
    assert (await OwnServer(gate).register(bootstrap["token"], without_subject)).status_code == 201


async def test_a_cluster_that_is_not_active_is_not_joined_and_the_token_stays_good(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    with gate.administrator() as connection:
        change = "UPDATE clusters SET state = %s WHERE id = %s"
        connection.execute(change, ("suspended", cluster["id"]))
        try:
            refused = await OwnServer(gate).register(bootstrap["token"])
        finally:
            connection.execute(change, ("active", cluster["id"]))
    assert refused.status_code == 409
    assert (await OwnServer(gate).register(bootstrap["token"])).status_code == 201


async def test_a_key_is_of_one_machine_only(gate: Gate, person: Person, cluster: JSON) -> None:
    server, _ = await new_machine(gate, person, cluster)
    second = await new_bootstrap(person, cluster)
    assert (await server.register(second["token"])).status_code == 409
    assert (await OwnServer(gate).register(second["token"])).status_code == 201


async def test_only_a_key_that_is_known_is_called_known(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    bootstrap = await new_bootstrap(person, cluster)
    server = OwnServer(gate, hostname="not-in-this-database")
    with gate.administrator() as connection:
        connection.execute(
            "ALTER TABLE machines ADD CONSTRAINT of_a_test"
            " CHECK (hostname <> 'not-in-this-database') NOT VALID"
        )
        try:
            assert (await server.register(bootstrap["token"])).status_code == 500
        finally:
            connection.execute("ALTER TABLE machines DROP CONSTRAINT of_a_test")
    assert (await server.register(bootstrap["token"])).status_code == 201


async def test_tokens_that_are_not_given_are_not_said_to_be_given(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    # No API server answers at the place of this cluster.
    assert (await server.signed("tokens", {})).status_code == 503
    with gate.administrator() as connection:
        change = "UPDATE clusters SET state = %s WHERE id = %s"
        connection.execute(change, ("suspended", cluster["id"]))
        try:
            refused = await server.signed("tokens", {})
        finally:
            connection.execute(change, ("active", cluster["id"]))
    assert (refused.status_code, error_of(refused)["metadata"]["state"]) == (409, "suspended")
    audit = gate.audit(person.workspace)
    assert not [line for line in audit if line[0] == "node.tokens" and line[2] == machine["id"]]


async def test_a_server_that_lost_the_answer_resumes_with_its_key(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    answer = await server.signed("resume", {"csr": csr_of(server.key)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["machine_id"] == machine["id"]
    leaf = x509.load_pem_x509_certificate(base64.b64decode(answer.json()["certificate"]))
    assert leaf.public_key() == server.key.public_key()
    other = await server.signed("resume", {"csr": csr_of(ec.generate_private_key(P256))})
    assert other.status_code == 400
    assert ("node.resume", "allowed", machine["id"]) in gate.audit(person.workspace)


async def test_a_report_is_seen_on_the_machine_and_changes_no_etag(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    expires = round(datetime.now(UTC).timestamp()) + 3600
    answer = await server.report(
        "kubelet_started",
        message="kubelet: line one\nline two\x1b[31m",
        client_certificate_expires_at=expires,
        clock=-20,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["instruction"] == "none"
    after = (await person.get(f"/v1/machines/{machine['id']}")).json()
    assert after["etag"] == machine["etag"]
    assert after["certificates"]["kubelet_client"]["expires_at"] == expires
    assert after["certificates"]["kubelet_client"]["renewed_at"] is not None
    assert after["clock_offset_seconds"] == pytest.approx(-20, abs=TAKES_SECONDS)
    assert after["last_report_at"] is not None
    with gate.administrator() as connection:
        stored = connection.execute(
            "SELECT reported_phase, reported_message FROM machines WHERE id = %s", (machine["id"],)
        ).fetchone()
    assert stored == ("kubelet_started", "kubelet: line one line two [31m")


async def test_an_instruction_to_restart_is_told_once(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    with gate.administrator() as connection:
        change = "UPDATE machines SET instruction = %s WHERE id = %s"
        connection.execute(change, ("restart", machine["id"]))
        told = [(await server.report()).json()["instruction"] for _ in range(2)]
        assert told == ["restart", "none"]
        connection.execute(change, ("uninstall", machine["id"]))
        told = [(await server.report()).json()["instruction"] for _ in range(2)]
        assert told == ["uninstall", "uninstall"]
        assert (await server.report("uninstalled")).json()["instruction"] == "none"
        uninstalled = connection.execute(
            "SELECT uninstalled_at IS NOT NULL FROM machines WHERE id = %s", (machine["id"],)
        ).fetchone()
    assert uninstalled == (True,)


async def test_a_clock_that_is_absurdly_off_is_told_too(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    answer = await server.report(clock=990_000_000_000)
    assert answer.status_code == 401
    assert "clock" in error_of(answer)["message"]
    shown = (await person.get(f"/v1/machines/{machine['id']}")).json()
    assert shown["clock_offset_seconds"] > 300_000_000


@pytest.mark.parametrize("zone", ["eth0", "\x1b[31mEVIL\n\u202e", "\0"])
async def test_an_address_of_one_link_is_none_of_a_server(
    gate: Gate, person: Person, cluster: JSON, zone: str
) -> None:
    server, _ = await new_machine(gate, person, cluster)
    assert (await server.report(addresses=[f"fe80::7%{zone}"])).status_code == 422


@pytest.mark.parametrize("clock", [-3600, 3600])
async def test_a_clock_that_is_off_is_told_and_shown(
    gate: Gate, person: Person, cluster: JSON, clock: int
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    answer = await server.report(clock=clock)
    assert answer.status_code == 401
    error = error_of(answer)
    assert int(error["metadata"]["clock_offset_seconds"]) == pytest.approx(clock, abs=TAKES_SECONDS)
    assert "clock" in error["message"]
    shown = (await person.get(f"/v1/machines/{machine['id']}")).json()
    assert shown["clock_offset_seconds"] == pytest.approx(clock, abs=TAKES_SECONDS)
    assert shown["last_report_at"] is None
    assert (await server.report()).status_code == 200


async def test_a_signature_counts_for_its_key_its_path_and_its_body_only(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    other, _ = await new_machine(gate, person, cluster)
    signed = await server.report()
    proof = {
        name: signed.request.headers[name]
        for name in ("bulkhead-key", "bulkhead-time", "bulkhead-signature", "content-type")
    }
    body = signed.request.content

    async def replay(path: str, content: bytes, **changes: str) -> int:
        headers = proof | {name.replace("_", "-"): value for name, value in changes.items()}
        return (await gate.client.post(path, content=content, headers=headers)).status_code

    report = "/v1/nodes/self:report"
    assert await replay(report, body) == 200
    assert await replay(report, body.replace(b"running", b"failed ")) in {401, 422}
    assert await replay(report, body.replace(b"10.20.0.7", b"10.20.0.8")) == 401
    assert await replay("/v1/nodes/self:tokens", body) == 401
    later = str(int(proof["bulkhead-time"]) + 1)
    assert await replay(report, body, bulkhead_time=later) == 401
    key_of_other = (await other.report()).request.headers["bulkhead-key"]
    assert await replay(report, body, bulkhead_key=key_of_other) == 401
    assert await replay(report, body, bulkhead_key="0" * 64) == 401
    for broken in ("", "zz", "A" * 500):
        assert await replay(report, body, bulkhead_signature=broken) == 401
    denied = gate.audit(person.workspace).count(("node.report", "denied", machine["id"]))
    assert denied == 1


async def test_a_revoked_machine_gets_nothing_any_more_and_is_audited_once(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    server, machine = await new_machine(gate, person, cluster)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE machines SET credentials_revoked_at = now() WHERE id = %s", (machine["id"],)
        )
    for _ in range(3):
        answer = await server.report()
        assert answer.status_code == 401
        assert "uninstall" in error_of(answer)["message"]
    assert (await server.signed("resume", {"csr": csr_of(server.key)})).status_code == 401
    assert (await server.signed("tokens", {})).status_code == 401
    denied = [
        line for line in gate.audit(person.workspace) if line[1:] == ("denied", machine["id"])
    ]
    assert [line[0] for line in denied] == ["node.report"]


async def test_no_token_of_a_user_opens_the_routes_of_servers(gate: Gate, person: Person) -> None:
    body = {"phase": "running", "hostname": "x", "addresses": []}
    for token in (person.token, a_token_of_nobody()):
        headers = {"authorization": f"Bearer {token}"}
        for verb, content in (("report", body), ("resume", {"csr": ""}), ("tokens", {})):
            answer = await gate.client.post(f"/v1/nodes/self:{verb}", json=content, headers=headers)
            assert answer.status_code == 401
