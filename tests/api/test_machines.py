"""Machines as their owners see them, and what may be asked of them."""

import pytest

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.own_server import new_machine


@pytest.fixture(scope="module")
async def person(gate: Gate) -> Person:
    return gate.new_person()


@pytest.fixture(scope="module")
async def cluster(gate: Gate, person: Person) -> JSON:
    return await gate.new_cluster_with_authorities(person)


async def ready_machine(gate: Gate, person: Person, cluster: JSON) -> JSON:
    """Have a machine whose join is over, as its workflow would leave it."""
    _, machine = await new_machine(gate, person, cluster)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE machines SET state = 'ACTIVE', stage = 'ready', active_operation_id = NULL,"
            " node_seen_at = now() WHERE id = %s",
            (machine["id"],),
        )
    found: JSON = (await person.get(f"/v1/machines/{machine['id']}")).json()
    return found


def headers_of(machine: JSON) -> dict[str, str]:
    return {"if-match": machine["etag"], "idempotency-key": a_key()}


async def test_machines_are_listed_by_cluster_and_state(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    joining = (await new_machine(gate, person, cluster))[1]
    ready = await ready_machine(gate, person, cluster)
    other = await gate.new_cluster_with_authorities(person)
    elsewhere = (await new_machine(gate, person, other))[1]

    async def ids(**filters: str) -> list[str]:
        listed = await person.get("/v1/machines", params=filters)
        assert listed.status_code == 200, listed.text
        return [one["id"] for one in listed.json()["data"]]

    assert await ids(cluster_id=other["id"]) == [elsewhere["id"]]
    mine = await ids(cluster_id=cluster["id"])
    assert {joining["id"], ready["id"]} <= set(mine)
    assert ready["id"] in await ids(cluster_id=cluster["id"], state="ACTIVE")
    assert joining["id"] not in await ids(state="ACTIVE")
    assert (await person.get("/v1/machines", params={"state": "GONE"})).status_code == 400
    basic = (await person.get("/v1/machines", params={"view": "basic"})).json()["data"][0]
    assert "certificates" not in basic
    assert "certificates" in ready
    stranger = gate.new_person()
    assert (await stranger.get("/v1/machines")).json()["data"] == []
    assert (await stranger.get(f"/v1/machines/{ready['id']}")).status_code == 404


async def test_a_machines_id_names_its_workspace(gate: Gate) -> None:
    person = gate.new_person()
    gate.join(person, gate.new_workspace(), Role.OWNER)
    second = Person(person.user_id, gate.new_workspace(), person.token, person.client)
    gate.join(person, second.workspace, Role.OWNER)
    context = {"akua-context": second.workspace}
    region = (await second.post("/v1/regions", {"name": "r"}, headers=context)).json()["id"]
    asked = await second.post("/v1/clusters", {"name": "c", "region_id": region}, headers=context)
    with gate.administrator() as connection:
        machine = new_id(Prefix.MACHINE)
        connection.execute(
            "INSERT INTO machines (workspace_id, id, cluster_id, kind, state, stage, schedulable,"
            " identity_key, identity_key_hash, operating_system, architecture, hostname, addresses,"
            " artifact_set, instruction, health, health_candidate, version) VALUES (%s, %s, %s,"
            " 'own_server', 'ACTIVE', 'ready', true, 'x', %s, 'linux', 'amd64', 'h', '[]',"
            " 'x', 'none', 'healthy', 'healthy', 1)",
            (second.workspace, machine, asked.json()["owner_id"], machine.encode()),
        )
    # Without the header, as a person who has the id only.
    assert (await person.get(f"/v1/machines/{machine}")).status_code == 200


async def test_a_machine_of_which_nothing_was_heard_lately_is_not_called_healthy(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    machine = await ready_machine(gate, person, cluster)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE machines SET health = 'healthy', reported_at = to_timestamp(1000),"
            " node_seen_at = to_timestamp(1060) WHERE id = %s",
            (machine["id"],),
        )
    shown = (await person.get(f"/v1/machines/{machine['id']}")).json()
    assert (shown["health"]["state"], shown["last_heard_at"]) == ("unknown", 1060)
    assert "it was healthy then" in shown["health"]["reason"]
    assert shown["health"]["since"] == 1180
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE machines SET reported_at = now() WHERE id = %s", (machine["id"],)
        )
    shown = (await person.get(f"/v1/machines/{machine['id']}")).json()
    assert (shown["health"]["state"], shown["health"]["since"]) == ("unknown", 1480)


async def test_a_machine_is_renamed_and_its_node_is_not(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    machine = await ready_machine(gate, person, cluster)
    assert machine["name"] == "web-1"
    path = f"/v1/machines/{machine['id']}"
    renamed = await person.call(
        "PATCH", path, json={"name": "front"}, headers={"if-match": machine["etag"]}
    )
    assert renamed.status_code == 200, renamed.text
    assert renamed.json()["name"] == "front"
    assert renamed.json()["node_name"] == machine["node_name"]
    stale = await person.call(
        "PATCH", path, json={"name": "x"}, headers={"if-match": machine["etag"]}
    )
    assert stale.status_code == 409
    etag = {"if-match": renamed.json()["etag"]}
    cleared = await person.call("PATCH", path, json={"name": None}, headers=etag)
    assert "name" not in cleared.json()


@pytest.mark.parametrize("verb", ["cordon", "uncordon"])
async def test_a_ready_machine_is_cordoned_by_an_operation(
    gate: Gate, person: Person, cluster: JSON, verb: str
) -> None:
    machine = await ready_machine(gate, person, cluster)
    path = f"/v1/machines/{machine['id']}:{verb}"
    asked = await person.post(path, headers={"if-match": machine["etag"]})
    assert asked.status_code == 202, asked.text
    operation = asked.json()
    assert operation["operation_id"] == operation["id"]
    assert (operation["owner_type"], operation["owner_id"]) == ("machine", machine["id"])
    assert await gate.workflow(operation) is not None
    now = (await person.get(f"/v1/machines/{machine['id']}")).json()
    busy = await person.post(path, headers={"if-match": now["etag"]})
    assert busy.status_code == 409
    assert busy.json()["errors"][0]["metadata"]["operation_id"] == operation["id"]
    joining = (await new_machine(gate, person, cluster))[1]
    early = await person.post(
        f"/v1/machines/{joining['id']}:{verb}", headers={"if-match": joining["etag"]}
    )
    assert early.status_code == 409


async def test_a_delete_takes_a_machine_that_joins_over(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    _, machine = await new_machine(gate, person, cluster)
    path = f"/v1/machines/{machine['id']}"
    without_key = await person.call("DELETE", path, headers={"if-match": machine["etag"]})
    assert without_key.status_code == 400
    headers = headers_of(machine)
    asked = await person.call("DELETE", path, headers=headers)
    assert asked.status_code == 202, asked.text
    assert (await person.call("DELETE", path, headers=headers)).json() == asked.json()
    deleting = (await person.get(path)).json()
    assert (deleting["state"], deleting["reconciling"]) == ("DELETING", True)
    assert (await person.call("DELETE", path, headers=headers_of(deleting))).status_code == 409
    steps = (await person.get(f"/v1/operations/{asked.json()['id']}")).json()["steps"]
    assert "drain_node" in [step["name"] for step in steps]
    created = (
        await person.get(
            "/v1/operations", params={"owner_type": "machine", "owner_id": machine["id"]}
        )
    ).json()["data"]
    assert [one["metadata"]["type"] for one in created] == ["machine.delete", "machine.create"]


async def test_a_server_of_ones_own_is_not_turned_off_or_replaced_here(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    machine = await ready_machine(gate, person, cluster)
    for verb in ("suspend", "resume", "replace"):
        answer = await person.post(
            f"/v1/machines/{machine['id']}:{verb}", headers=headers_of(machine)
        )
        assert answer.status_code == 409
        assert answer.json()["errors"][0]["metadata"]["reason"] == "FAILED_PRECONDITION"
        assert "of your own" in answer.json()["errors"][0]["message"]


async def test_a_machine_goes_by_force_where_its_cluster_cannot_be_asked(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    machine = await ready_machine(gate, person, cluster)
    path = f"/v1/machines/{machine['id']}"
    change = "UPDATE clusters SET state = %s WHERE id = %s"
    with gate.administrator() as connection:
        connection.execute(change, ("suspended", cluster["id"]))
        try:
            refused = await person.call("DELETE", path, headers=headers_of(machine))
            forced = await person.call("DELETE", f"{path}?force=true", headers=headers_of(machine))
        finally:
            connection.execute(change, ("active", cluster["id"]))
    assert refused.status_code == 409
    assert "force=true" in refused.json()["errors"][0]["message"]
    assert forced.status_code == 202, forced.text
    [event, *_] = (
        await person.get("/v1/audit_events", params={"action": "machine.delete"})
    ).json()["data"]
    assert (event["resource_id"], event["details"]["force"]) == (machine["id"], True)


async def test_a_delete_that_waits_for_its_cluster_is_forced_on(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    machine = await ready_machine(gate, person, cluster)
    path = f"/v1/machines/{machine['id']}"
    waiting = await person.call("DELETE", path, headers=headers_of(machine))
    deleting = (await person.get(path)).json()
    forced = await person.call("DELETE", f"{path}?force=true", headers=headers_of(deleting))
    assert forced.status_code == 202, forced.text
    assert forced.json()["operation_id"] == waiting.json()["operation_id"]
    with gate.administrator() as connection:
        stored = connection.execute(
            "SELECT placement -> 'forced' FROM operations WHERE id = %s",
            (waiting.json()["operation_id"],),
        ).fetchone()
    assert stored == (True,)


async def test_members_read_machines_and_change_none(
    gate: Gate, person: Person, cluster: JSON
) -> None:
    machine = await ready_machine(gate, person, cluster)
    member = gate.new_person(person.workspace, Role.MEMBER)
    path = f"/v1/machines/{machine['id']}"
    assert (await member.get(path)).status_code == 200
    answers = [
        await member.call("PATCH", path, json={"name": "x"}, headers=headers_of(machine)),
        await member.call("DELETE", path, headers=headers_of(machine)),
        await member.post(f"{path}:cordon", headers=headers_of(machine)),
    ]
    assert [answer.status_code for answer in answers] == [403] * 3
    assert ("machine.delete", "denied", machine["id"]) in gate.audit(person.workspace)


async def test_a_cluster_with_machines_is_not_deleted(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_cluster_with_authorities(person)
    machine = await ready_machine(gate, person, cluster)
    path = f"/v1/clusters/{cluster['id']}"
    etag = {"if-match": (await person.get(path)).json()["etag"]}
    answer = await person.call("DELETE", path, headers=etag)
    assert answer.status_code == 409
    assert machine["id"] in answer.json()["errors"][0]["message"]
    with gate.administrator() as connection:
        connection.execute("DELETE FROM machines WHERE id = %s", (machine["id"],))
    assert (await person.call("DELETE", path, headers=etag)).status_code == 202


async def test_the_network_profile_of_a_cluster_is_the_settings_default(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = gate.new_person()
    settings = gate.app.state.nodes.settings
    bridge = settings.model_copy(update={"default_network_profile": "linux_bridge"})
    monkeypatch.setattr(gate.app.state.nodes, "settings", bridge)
    cluster = await gate.new_active_cluster(person)
    assert cluster["network_profile"] == "linux_bridge"
    assert cluster["certificates"]["expires_at"] == 4100000000
    assert cluster["certificates"]["renewed_at"] is not None
