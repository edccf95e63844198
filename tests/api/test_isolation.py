"""What belongs to somebody else is, to the byte, what does not exist."""

from string import Template
from typing import Any

import pytest

from domain.identifiers import Prefix, new_id
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.holdings import TABLES, new_holdings
from tests.api.keeper import new_keeper
from tests.api.own_server import new_bootstrap, new_machine

DIGEST = "sha256:" + "0" * 64
A_MEMBER = {"user_id": new_id(Prefix.USER), "role": "member"}
NEW_VERSION = {"semver": "2.0.0", "ref": "2.0.0", "input_schema": {}}

# Every route that takes an id: the kind of thing, the method, the path, and a body. What lies below
# another thing is looked for below one of the person's own.
ROUTES: list[tuple[Prefix, str, str, JSON | None]] = [
    (Prefix.WORKSPACE, "GET", "/v1/workspaces/{}", None),
    (Prefix.WORKSPACE, "PATCH", "/v1/workspaces/{}", {"name": "mine"}),
    (Prefix.WORKSPACE, "GET", "/v1/workspaces/{}/members", None),
    (Prefix.WORKSPACE, "POST", "/v1/workspaces/{}/members", A_MEMBER),
    (Prefix.WORKSPACE, "PATCH", "/v1/workspaces/{}/members/{usr}", {"role": "member"}),
    (Prefix.WORKSPACE, "DELETE", "/v1/workspaces/{}/members/{usr}", None),
    (Prefix.USER, "PATCH", "/v1/workspaces/{ws}/members/{}", {"role": "member"}),
    (Prefix.USER, "DELETE", "/v1/workspaces/{ws}/members/{}", None),
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
    (Prefix.WORKER_BOOTSTRAP, "GET", "/v1/clusters/{clu}/worker_bootstraps/{}", None),
    (Prefix.WORKER_BOOTSTRAP, "POST", "/v1/clusters/{clu}/worker_bootstraps/{}:revoke", None),
    (Prefix.MACHINE, "GET", "/v1/machines/{}", None),
    (Prefix.MACHINE, "PATCH", "/v1/machines/{}", {"name": "mine"}),
    (Prefix.MACHINE, "DELETE", "/v1/machines/{}", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:cordon", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:uncordon", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:suspend", None),
    (Prefix.MACHINE, "POST", "/v1/machines/{}:resume", None),
    (Prefix.PACKAGE, "GET", "/v1/packages/{}", None),
    (Prefix.PACKAGE, "DELETE", "/v1/packages/{}", None),
    (Prefix.PACKAGE, "GET", "/v1/packages/{}/versions", None),
    (Prefix.PACKAGE, "POST", "/v1/packages/{}/versions", NEW_VERSION),
    (Prefix.PACKAGE_VERSION, "GET", "/v1/packages/{pkg}/versions/{}", None),
    (Prefix.PACKAGE_VERSION, "GET", "/v1/packages/{pkg}/versions/{}/inputs", None),
    (Prefix.PRODUCT, "GET", "/v1/products/{}", None),
    (Prefix.PRODUCT, "PATCH", "/v1/products/{}", {"name": "mine"}),
    (Prefix.PRODUCT, "POST", "/v1/products/{}:archive", {}),
    (Prefix.PRODUCT, "POST", "/v1/products/{}:unarchive", None),
    (Prefix.REGISTRY_CONNECTION, "DELETE", "/v1/registry_connections/{}", None),
    (Prefix.INSTALL, "GET", "/v1/installs/{}", None),
    (Prefix.INSTALL, "PATCH", "/v1/installs/{}", {"values": {}}),
    (Prefix.INSTALL, "DELETE", "/v1/installs/{}", None),
    (Prefix.INSTALL, "POST", "/v1/installs/{}:update", {"package_version_id": "x"}),
    (Prefix.INSTALL, "POST", "/v1/installs/{}:restore", {"render_id": "x"}),
    (Prefix.INSTALL, "POST", "/v1/installs/{}:hold", {"reason": "x"}),
    (Prefix.INSTALL, "POST", "/v1/installs/{}:release_hold", None),
    (Prefix.INSTALL, "POST", "/v1/installs/{}:approve", {"digest": DIGEST}),
    (
        Prefix.INSTALL,
        "PATCH",
        "/v1/installs/{}/automatic_updates",
        {"automatic_updates_enabled": True},
    ),
    (Prefix.INSTALL, "GET", "/v1/installs/{}/status", None),
    (Prefix.INSTALL, "GET", "/v1/installs/{}/pods", None),
    (Prefix.INSTALL, "GET", "/v1/installs/{}/logs", None),
    (Prefix.INSTALL, "GET", "/v1/installs/{}/drift", None),
    (Prefix.INSTALL, "GET", "/v1/installs/{}/renders", None),
    (Prefix.INSTALL, "POST", "/v1/installs/{}/renders", {}),
    (Prefix.RENDER, "GET", "/v1/installs/{inst}/renders/{}", None),
    (Prefix.RENDER, "GET", "/v1/installs/{inst}/renders/{}/plan", None),
    (Prefix.RENDER, "GET", "/v1/installs/{inst}/renders/{}/diff", None),
    (Prefix.GRANT, "GET", "/v1/grants/{}", None),
    (Prefix.GRANT, "DELETE", "/v1/grants/{}", None),
    (Prefix.GRANT, "POST", "/v1/grants/{}:consent", {"package_version_id": "x"}),
    (Prefix.ROLLOUT, "GET", "/v1/rollouts/{}", None),
    (Prefix.ROLLOUT, "GET", "/v1/rollouts/{}/targets", None),
    (Prefix.ROLLOUT, "GET", "/v1/rollouts/{}/events", None),
    (Prefix.ROLLOUT, "POST", "/v1/rollouts/{}:approve", {"digest": DIGEST}),
    (Prefix.ROLLOUT, "POST", "/v1/rollouts/{}:pause", None),
    (Prefix.ROLLOUT, "POST", "/v1/rollouts/{}:resume", None),
    (Prefix.ROLLOUT, "POST", "/v1/rollouts/{}:cancel", None),
    (Prefix.ROLLOUT, "POST", "/v1/rollouts/{}:rollback", None),
    (Prefix.EMERGENCY_STOP, "GET", "/v1/emergency_stops/{}", None),
    (Prefix.EMERGENCY_STOP, "POST", "/v1/emergency_stops/{}:lift", None),
]

# Every field of a body that names one of these things: its kind, the path, the field, and the body;
# `$it` is the other's id, and what begins with `$` otherwise is the person's own.
LATEST = '{"kind": "latest"}'
REFERENCES = [
    (Prefix.PRODUCT, "installs", "product_id", '{"product_id": "$it", "region_id": "$reg"}'),
    (
        Prefix.PACKAGE,
        "installs",
        "package_id",
        f'{{"package_id": "$it", "package_version_pin": {LATEST}, "region_id": "$reg"}}',
    ),
    (
        Prefix.CLUSTER,
        "installs",
        "cluster_id",
        '{"product_id": "$prod", "region_id": "$reg", "cluster_id": "$it"}',
    ),
    (Prefix.REGION, "installs", "region_id", '{"product_id": "$prod", "region_id": "$it"}'),
    (
        Prefix.PACKAGE_VERSION,
        "installs/$inst:update",
        "package_version_id",
        '{"package_version_id": "$it"}',
    ),
    (Prefix.RENDER, "installs/$inst:restore", "render_id", '{"render_id": "$it"}'),
    (
        Prefix.PACKAGE,
        "products",
        "package_id",
        f'{{"name": "mine", "package_id": "$it", "package_version_pin": {LATEST}}}',
    ),
    (Prefix.INSTALL, "grants", "install_id", '{"install_id": "$it"}'),
    (
        Prefix.PACKAGE_VERSION,
        "grants/$grnt:consent",
        "package_version_id",
        '{"package_version_id": "$it"}',
    ),
    (
        Prefix.PRODUCT,
        "rollouts",
        "product_id",
        '{"product_id": "$it", "package_version_id": "$pkgv"}',
    ),
    (
        Prefix.PACKAGE_VERSION,
        "rollouts",
        "package_version_id",
        '{"product_id": "$prod", "package_version_id": "$it"}',
    ),
    (
        Prefix.PRODUCT,
        "emergency_stops",
        "subject",
        '{"scope": "product", "subject": "$it", "reason": "x"}',
    ),
    (
        Prefix.REGION,
        "emergency_stops",
        "subject",
        '{"scope": "region", "subject": "$it", "reason": "x"}',
    ),
]


async def things_of(gate: Gate, person: Person) -> dict[Prefix, str]:
    held = await new_holdings(await new_keeper(gate, person))
    cluster = await gate.new_cluster_with_authorities(person)
    _, machine = await new_machine(gate, person, cluster)
    bootstrap = await new_bootstrap(person, cluster)
    token = (await person.post("/v1/api_tokens", {"name": "x"})).json()
    operation = (await person.get("/v1/operations")).json()["data"][0]
    return {
        **held.ids,
        Prefix.USER: person.user_id,
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


@pytest.fixture(scope="session")
async def asker(gate: Gate) -> Person:
    return gate.new_person()


@pytest.fixture(scope="session")
async def own(gate: Gate, asker: Person) -> dict[Prefix, str]:
    return await things_of(gate, asker)


@pytest.fixture(scope="session")
def before(gate: Gate, foreign: dict[Prefix, str]) -> dict[Prefix, Any]:
    return rows_of(gate, foreign)


def rows_of(gate: Gate, things: dict[Prefix, str]) -> dict[Prefix, Any]:
    """Return all that is stored of things, by their kinds."""
    with gate.administrator() as connection:
        return {
            prefix: connection.execute(
                f"SELECT to_jsonb(t) FROM {table} t WHERE id = %s",  # noqa: S608 - a name of ours
                (things[prefix],),
            ).fetchone()
            for prefix, table in TABLES.items()
        }


@pytest.mark.parametrize(("prefix", "method", "path", "body"), ROUTES)
async def test_a_foreign_id_and_an_unknown_one_and_a_malformed_one_are_the_same_404(
    asker: Person,
    own: dict[Prefix, str],
    foreign: dict[Prefix, str],
    before: dict[Prefix, Any],
    prefix: Prefix,
    method: str,
    path: str,
    body: JSON | None,
) -> None:
    assert before
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
        await asker.call(
            method,
            path.format(value, **own),
            json=body,
            headers={"if-match": "1", "idempotency-key": a_key()},
        )
        for value in identifiers
        # The query says what is too long for it before anything is looked up.
        if "?" not in path or len(value) < 54
    ]
    assert {answer.status_code for answer in answers} == {404}, [a.text for a in answers]
    assert len({answer.text for answer in answers}) == 1
    workspace_token = (await asker.post("/v1/api_tokens", {"name": "x"})).json()["token"]
    bearer = Person(asker.user_id, asker.workspace, workspace_token, asker.client)
    as_token = await bearer.call(
        method,
        path.format(foreign[prefix], **own),
        json=body,
        headers={"if-match": "1", "idempotency-key": a_key()},
    )
    assert as_token.status_code in {403, 404}
    assert foreign[prefix] not in as_token.text


@pytest.mark.parametrize(("prefix", "path", "field", "body"), REFERENCES)
async def test_a_foreign_thing_in_a_body_is_refused_as_an_unknown_one(
    asker: Person,
    own: dict[Prefix, str],
    foreign: dict[Prefix, str],
    before: dict[Prefix, Any],
    prefix: Prefix,
    path: str,
    field: str,
    body: str,
) -> None:
    assert before
    named = {str(kind): identifier for kind, identifier in own.items()}
    answers = []
    for value in (foreign[prefix], new_id(prefix)):
        answer = await asker.call(
            "POST",
            Template(f"/v1/{path}").substitute(named),
            content=Template(body).substitute(named, it=value),
            headers=await headers_for(asker, path, own),
        )
        assert value not in answer.text
        answers.append(answer)
    assert {answer.status_code for answer in answers} <= {404, 422}, answers[0].text
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["errors"][0]["path"] == ["body", field], answers[0].text


async def headers_for(asker: Person, path: str, own: dict[Prefix, str]) -> dict[str, str]:
    """Return what a request for a verb of one's own install has to say."""
    headers = {"content-type": "application/json", "idempotency-key": a_key()}
    if "$inst" in path:
        install = (await asker.get(f"/v1/installs/{own[Prefix.INSTALL]}")).json()
        headers["if-match"] = install["etag"]
    return headers


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
    below = {"package_versions", "renders"}
    nouns = {"clusters", "machines", "operations", "regions", "api_tokens", *TABLES.values()}
    for noun in sorted(nouns - below):
        rows = (await person.get(f"/v1/{noun}")).json()["data"]
        if noun == "emergency_stops":
            # One of everything is everybody's to see, and another test may have made it.
            rows = [row for row in rows if row["scope"] != "all"]
        assert rows == [], noun
    owned = {"owner_type": "cluster", "owner_id": foreign[Prefix.CLUSTER]}
    assert (await person.get("/v1/operations", params=owned)).json()["data"] == []
    of_cluster = {"cluster_id": foreign[Prefix.CLUSTER]}
    assert (await person.get("/v1/machines", params=of_cluster)).json()["data"] == []
    workspaces = (await person.get("/v1/workspaces")).json()["data"]
    assert [workspace["id"] for workspace in workspaces] == [person.workspace]


async def test_nothing_of_the_other_workspace_was_changed_by_all_this(
    gate: Gate, foreign: dict[Prefix, str], before: dict[Prefix, Any]
) -> None:
    assert rows_of(gate, foreign) == before
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
