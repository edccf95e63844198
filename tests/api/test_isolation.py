"""What belongs to somebody else is, to the byte, what does not exist."""

import pytest

from domain.identifiers import Prefix, new_id
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.own_server import new_bootstrap, new_machine

# Every route that takes an id: the kind of thing, the method, the path, and a body. What lies below
# a cluster is looked for below one of the person's own.
ROUTES = [
    (Prefix.WORKSPACE, "GET", "/v1/workspaces/{}", None),
    (Prefix.WORKSPACE, "PATCH", "/v1/workspaces/{}", {"name": "mine"}),
    (Prefix.API_TOKEN, "DELETE", "/v1/api_tokens/{}", None),
    (Prefix.CLUSTER, "GET", "/v1/clusters/{}", None),
    (Prefix.CLUSTER, "PATCH", "/v1/clusters/{}", {"name": "mine"}),
    (Prefix.CLUSTER, "DELETE", "/v1/clusters/{}", None),
    (Prefix.CLUSTER, "POST", "/v1/clusters/{}:suspend", None),
    (Prefix.CLUSTER, "POST", "/v1/clusters/{}:resume", None),
    (Prefix.CLUSTER, "GET", "/v1/clusters/{}/kubeconfig", None),
    (Prefix.OPERATION, "GET", "/v1/operations/{}", None),
    (Prefix.OPERATION, "POST", "/v1/operations/{}:wait", None),
    (Prefix.OPERATION, "POST", "/v1/operations/{}:cancel", None),
    (Prefix.CLUSTER, "GET", "/v1/quotas?cluster_id={}", None),
    (Prefix.CLUSTER, "GET", "/v1/clusters/{}/worker_bootstraps", None),
    (Prefix.CLUSTER, "POST", "/v1/clusters/{}/worker_bootstraps", {}),
    (Prefix.WORKER_BOOTSTRAP, "GET", "/v1/clusters/{own}/worker_bootstraps/{}", None),
    (Prefix.WORKER_BOOTSTRAP, "POST", "/v1/clusters/{own}/worker_bootstraps/{}:revoke", None),
    (Prefix.MACHINE, "GET", "/v1/machines/{}", None),
    (Prefix.MACHINE, "PATCH", "/v1/machines/{}", {"name": "mine"}),
    (Prefix.MACHINE, "DELETE", "/v1/machines/{}", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:cordon", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:uncordon", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:suspend", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:resume", None),
]


async def things_of(gate: Gate, person: Person) -> dict[Prefix, str]:
    cluster = await gate.new_cluster_with_authorities(person)
    _, machine = await new_machine(gate, person, cluster)
    bootstrap = await new_bootstrap(person, cluster)
    token = (await person.post("/v1/api_tokens", {"name": "x"})).json()
    operation = (await person.get("/v1/operations")).json()["data"][0]
    return {
        Prefix.WORKSPACE: person.workspace,
        Prefix.API_TOKEN: token["id"],
        Prefix.CLUSTER: cluster["id"],
        Prefix.MACHINE: machine["id"],
        Prefix.OPERATION: operation["id"],
        Prefix.REGION: cluster["region_id"],
        Prefix.WORKER_BOOTSTRAP: bootstrap["id"],
    }


@pytest.fixture(scope="session")
async def foreign(gate: Gate) -> dict[Prefix, str]:
    return await things_of(gate, gate.new_person())


@pytest.mark.parametrize(("prefix", "method", "path", "body"), ROUTES)
async def test_a_foreign_id_and_an_unknown_one_and_a_malformed_one_are_the_same_404(
    gate: Gate,
    foreign: dict[Prefix, str],
    prefix: Prefix,
    method: str,
    path: str,
    body: JSON | None,
) -> None:
    person = gate.new_person()
    own = (await gate.new_active_cluster(person))["id"] if "{own}" in path else ""
    identifiers = [
        foreign[prefix],
        new_id(prefix),
        new_id(Prefix.USER),
        foreign[Prefix.REGION],
        f"{prefix}_{'F' * 32}",
        f"{prefix}_{'0' * 31}%00",
        "x" * 60,
    ]
    answers = [
        await person.call(
            method,
            path.format(value, own=own),
            json=body,
            headers={"if-match": "1", "idempotency-key": a_key()},
        )
        for value in identifiers
        # The query says what is too long for it before anything is looked up.
        if "?" not in path or len(value) < 54
    ]
    assert {answer.status_code for answer in answers} == {404}, [a.text for a in answers]
    assert len({answer.text for answer in answers}) == 1
    workspace_token = (await person.post("/v1/api_tokens", {"name": "x"})).json()["token"]
    bearer = Person(person.user_id, person.workspace, workspace_token, person.client)
    as_token = await bearer.call(
        method,
        path.format(foreign[prefix], own=own),
        json=body,
        headers={"if-match": "1", "idempotency-key": a_key()},
    )
    assert as_token.status_code in {403, 404}
    assert foreign[prefix] not in as_token.text


async def test_a_foreign_region_cannot_be_used(gate: Gate, foreign: dict[Prefix, str]) -> None:
    person = gate.new_person()
    own = await gate.new_active_cluster(person)
    answers = []
    for region in (foreign[Prefix.REGION], new_id(Prefix.REGION)):
        body = {"name": "x", "region_id": region}
        path = f"/v1/clusters/{own['id']}"
        answers += [
            await person.post("/v1/clusters", body),
            await person.call("PATCH", path, json=body, headers={"if-match": own["etag"]}),
        ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["errors"][0]["path"] == ["body", "region_id"]


async def test_lists_show_nothing_of_others(gate: Gate, foreign: dict[Prefix, str]) -> None:
    person = gate.new_person()
    for noun in ("clusters", "machines", "operations", "regions", "api_tokens"):
        assert (await person.get(f"/v1/{noun}")).json()["data"] == [], noun
    owned = {"owner_type": "cluster", "owner_id": foreign[Prefix.CLUSTER]}
    assert (await person.get("/v1/operations", params=owned)).json()["data"] == []
    of_cluster = {"cluster_id": foreign[Prefix.CLUSTER]}
    assert (await person.get("/v1/machines", params=of_cluster)).json()["data"] == []
    workspaces = (await person.get("/v1/workspaces")).json()["data"]
    assert [workspace["id"] for workspace in workspaces] == [person.workspace]


async def test_nothing_of_the_other_workspace_was_changed_by_all_this(
    gate: Gate, foreign: dict[Prefix, str]
) -> None:
    with gate.administrator() as connection:
        state, name, active = connection.execute(
            "SELECT state, name, active_operation_id FROM clusters WHERE id = %s",
            (foreign[Prefix.CLUSTER],),
        ).fetchone() or (None, None, None)
        machine = connection.execute(
            "SELECT state, name, version FROM machines WHERE id = %s", (foreign[Prefix.MACHINE],)
        ).fetchone()
        bootstrap = connection.execute(
            "SELECT revoked_at, version FROM worker_bootstraps WHERE id = %s",
            (foreign[Prefix.WORKER_BOOTSTRAP],),
        ).fetchone()
    assert (state, name, active) == ("active", "test", None)
    assert machine == ("PROVISIONING", "web-1", 1)
    assert bootstrap == (None, 1)
