"""A server that the platform made registers: it becomes the machine that it was made for."""

import pytest

from domain.identifiers import Prefix, new_id
from domain.names import node_name_of
from domain.tokens import TokenKind, hash_of, new_token
from tests.api.compute import Compute, new_compute
from tests.api.gate import JSON, Gate
from tests.api.keeper import ok
from tests.api.own_server import OwnServer, csr_of


@pytest.fixture(scope="module")
async def compute(gate: Gate) -> Compute:
    made = await new_compute(gate)
    cluster = await gate.new_cluster_with_authorities(made.person)
    return Compute(
        gate=gate, keeper=made.keeper, secret=made.secret, config=made.config, cluster=cluster
    )


def token_for(compute: Compute, machine: JSON) -> str:
    """Give out what the worker puts into a server's user data."""
    token = new_token(TokenKind.WORKER_BOOTSTRAP)
    compute.run(
        "INSERT INTO worker_bootstraps (workspace_id, id, cluster_id, token_hash, created_by,"
        " expires_at, machine_id, version)"
        " VALUES (%s, %s, %s, %s, 'usr', now() + interval '1 hour', %s, 1)",
        compute.person.workspace,
        new_id(Prefix.WORKER_BOOTSTRAP),
        compute.cluster["id"],
        hash_of(token),
        machine["id"],
    )
    return token


async def test_a_made_server_becomes_its_machine_once(compute: Compute) -> None:
    machine = await compute.new_machine(name="web")
    token = token_for(compute, machine)
    answer = await OwnServer(compute.gate).register(token)
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["machine_id"], told["node_name"]) == (machine["id"], node_name_of(machine["id"]))
    found = await compute.machine(machine["id"])
    assert (found["kind"], found["name"], found["state"]) == ("cloud", "web", "PROVISIONING")
    assert found["addresses"] == ["10.20.0.7"]
    assert (await OwnServer(compute.gate).register(token)).status_code == 401
    query = {"owner_type": "machine", "owner_id": machine["id"]}
    operations = ok(await compute.person.get("/v1/operations", params=query))["data"]
    assert [operation["metadata"]["type"] for operation in operations] == ["machine.create"]


async def test_a_server_whose_machine_shall_go_is_let_in_no_more(compute: Compute) -> None:
    machine = await compute.new_machine()
    token = token_for(compute, machine)
    ok(await compute.call(machine, "DELETE"), 202)
    assert (await OwnServer(compute.gate).register(token)).status_code == 401
    assert (await compute.machine(machine["id"]))["state"] == "DELETING"


@pytest.mark.parametrize("end", ["expires_at = now()", "revoked_at = now()"])
async def test_a_token_that_is_refused_gives_its_machine_to_nobody(
    compute: Compute, end: str
) -> None:
    machine = await compute.new_machine()
    token = token_for(compute, machine)
    digest = hash_of(token)
    compute.run(f"UPDATE worker_bootstraps SET {end} WHERE token_hash = %s", digest)  # noqa: S608 - of the test
    thief, honest = OwnServer(compute.gate), OwnServer(compute.gate)
    assert (await thief.register(token)).status_code == 401
    for verb, body in (("resume", {"csr": csr_of(thief.key)}), ("tokens", {})):
        assert (await thief.signed(verb, body)).status_code == 401, verb
    assert (await thief.report()).status_code == 401
    again = "expires_at = now() + interval '1 hour', revoked_at = NULL"
    compute.run(f"UPDATE worker_bootstraps SET {again} WHERE token_hash = %s", digest)  # noqa: S608 - the same
    assert (await honest.register(token)).status_code == 201
