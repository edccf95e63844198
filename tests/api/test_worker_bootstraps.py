"""Rights to join: told once, revoked at once, of one cluster."""

import asyncio
import hashlib

import pytest

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from infra.settings import ApiSettings
from tests.api.gate import NODE_URL, Gate, a_key
from tests.api.keeper import error_of
from tests.api.own_server import OwnServer, new_bootstrap


async def test_a_bootstrap_is_told_once_and_never_again(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    path = f"/v1/clusters/{cluster['id']}/worker_bootstraps"
    headers = {"idempotency-key": a_key()}
    made = await person.post(path, {"ttl_seconds": 60}, headers=headers)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    bootstrap = made.json()
    token = bootstrap["token"]
    assert token.startswith("bulkhead_wbt_")
    assert token in bootstrap["command"]
    assert token in bootstrap["cloud_init"]
    assert bootstrap["expires_at"] - bootstrap["created_at"] == pytest.approx(60, abs=2)
    supported = {
        (system, architecture): how["supported"]
        for system, architectures in bootstrap["artifacts"].items()
        for architecture, how in architectures.items()
    }
    assert [pair for pair, yes in supported.items() if yes] == [("linux", "amd64")]
    assert len(supported) == 4

    again = await person.post(path, {"ttl_seconds": 60}, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    one_time = {"token", "command", "cloud_init", "artifacts"}
    told_later = {name: value for name, value in bootstrap.items() if name not in one_time}
    assert again.json() == told_later
    member = gate.new_person(person.workspace, Role.MEMBER)
    assert (await member.get(f"{path}/{bootstrap['id']}")).json() == told_later
    assert (await member.get(path)).json()["data"] == [told_later]
    denied = await member.post(path, {})
    assert denied.status_code == 403
    assert ("worker_bootstrap.create", "denied", cluster["id"]) in gate.audit(person.workspace)


async def test_the_command_pins_the_authority_by_its_hash(gate: Gate) -> None:
    person = gate.new_person()
    bootstrap = await new_bootstrap(person, await gate.new_active_cluster(person))
    served = await gate.client.get("/v1/nodes/authority")
    assert served.status_code == 200
    assert served.content.startswith(b"-----BEGIN CERTIFICATE-----")
    assert hashlib.sha256(served.content).hexdigest() in bootstrap["command"]
    assert NODE_URL in bootstrap["command"]


async def test_a_revoke_counts_at_once_whatever_becomes_of_its_operation(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_cluster_with_authorities(person)
    bootstrap = await new_bootstrap(person, cluster)
    assert "refused" in bootstrap["revoke_effect"]
    path = f"/v1/clusters/{cluster['id']}/worker_bootstraps/{bootstrap['id']}"
    assert (await person.post(f"{path}:revoke")).status_code == 400
    stale = await person.post(f"{path}:revoke", headers={"if-match": "7"})
    assert stale.status_code == 409
    asked = await person.post(f"{path}:revoke", headers={"if-match": bootstrap["etag"]})
    assert asked.status_code == 202, asked.text
    operation = asked.json()
    assert operation["owner_id"] == cluster["id"]
    assert operation["metadata"] == {
        "type": "cluster.worker_bootstrap.revoke",
        "cluster_id": cluster["id"],
        "worker_bootstrap_id": bootstrap["id"],
    }
    assert await gate.workflow(operation) is not None
    revoked = (await person.get(path)).json()
    assert (revoked["status"], revoked["reconciling"]) == ("revoked", True)
    assert revoked["active_operation"]["id"] == operation["id"]
    again = await person.post(f"{path}:revoke", headers={"if-match": revoked["etag"]})
    assert error_of(again, 409, "CONFLICT")["metadata"]["operation_id"] == operation["id"]
    refused = await OwnServer(gate).register(bootstrap["token"])
    assert refused.status_code == 401
    assert "revoked" in refused.json()["errors"][0]["message"]
    assert ("node.register", "denied", bootstrap["id"]) in gate.audit(person.workspace)


async def test_a_revoke_and_a_use_at_the_same_time_have_one_winner(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_cluster_with_authorities(person)
    bootstrap = await new_bootstrap(person, cluster)
    path = f"/v1/clusters/{cluster['id']}/worker_bootstraps/{bootstrap['id']}"
    used, revoked = await asyncio.gather(
        OwnServer(gate).register(bootstrap["token"]),
        person.post(f"{path}:revoke", headers={"if-match": bootstrap["etag"]}),
    )
    # A use that came first changed what the revoke was based on.
    assert (used.status_code, revoked.status_code) in {(201, 409), (401, 202)}
    after = (await person.get(path)).json()
    assert (after["status"] == "revoked") == (revoked.status_code == 202)
    assert (after["machine_id"] is not None) == (used.status_code == 201)


async def test_a_bootstrap_of_another_cluster_or_workspace_is_not_found(gate: Gate) -> None:
    person, stranger = gate.new_person(), gate.new_person()
    cluster, other = [await gate.new_active_cluster(person) for _ in range(2)]
    bootstrap = await new_bootstrap(person, cluster)
    own = f"/v1/clusters/{cluster['id']}/worker_bootstraps/{bootstrap['id']}"
    answers = [
        await person.get(f"/v1/clusters/{other['id']}/worker_bootstraps/{bootstrap['id']}"),
        await person.get(
            f"/v1/clusters/{cluster['id']}/worker_bootstraps/{new_id(Prefix.WORKER_BOOTSTRAP)}"
        ),
        await stranger.get(own),
        await stranger.post(f"{own}:revoke", headers={"if-match": bootstrap["etag"]}),
        await stranger.post(f"/v1/clusters/{cluster['id']}/worker_bootstraps", {}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5


async def test_without_an_address_for_servers_the_setting_is_named(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    monkeypatch.setattr(gate.app.state.nodes, "settings", ApiSettings())
    answer = await person.post(f"/v1/clusters/{cluster['id']}/worker_bootstraps", {})
    assert answer.status_code == 409
    assert "BULKHEAD_NODE_ADDRESS" in answer.json()["errors"][0]["message"]
    assert gate.count("worker_bootstraps", person.workspace) == 0


async def test_a_cluster_that_is_not_active_gives_out_no_bootstrap(gate: Gate) -> None:
    person = gate.new_person()
    cluster_id = (await gate.new_cluster(person))["owner_id"]
    answer = await person.post(f"/v1/clusters/{cluster_id}/worker_bootstraps", {})
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["metadata"]["state"] == "pending"
