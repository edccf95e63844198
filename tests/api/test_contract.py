"""Every route, once, against the shapes and statuses that the contract publishes."""

import urllib.parse

import httpx
import pytest

from api.openapi import openapi_of
from tests.api import contract
from tests.api.compute import new_compute
from tests.api.gate import JSON, Gate, Person
from tests.api.own_server import new_machine

# Each route with its success status and the headers that it takes, as published.
PUBLISHED = {
    ("GET", "/v1/workspaces"): (200, set()),
    ("POST", "/v1/workspaces"): (201, set()),
    ("GET", "/v1/workspaces/{id}"): (200, set()),
    ("PATCH", "/v1/workspaces/{id}"): (200, {"if-match!"}),
    ("GET", "/v1/workspaces/{id}/members"): (200, set()),
    ("POST", "/v1/workspaces/{id}/members"): (201, {"idempotency-key"}),
    ("PATCH", "/v1/workspaces/{id}/members/{userId}"): (200, {"idempotency-key"}),
    ("DELETE", "/v1/workspaces/{id}/members/{userId}"): (204, {"idempotency-key"}),
    ("POST", "/v1/api_tokens"): (201, set()),
    ("GET", "/v1/api_tokens"): (200, set()),
    ("DELETE", "/v1/api_tokens/{id}"): (204, set()),
    ("GET", "/v1/regions"): (200, set()),
    ("POST", "/v1/regions"): (201, set()),
    ("GET", "/v1/clusters"): (200, set()),
    ("POST", "/v1/clusters"): (202, {"idempotency-key"}),
    ("GET", "/v1/clusters/{id}"): (200, set()),
    ("PATCH", "/v1/clusters/{id}"): (200, {"idempotency-key", "if-match!"}),
    ("DELETE", "/v1/clusters/{id}"): (202, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/clusters/{id}:suspend"): (202, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/clusters/{id}:resume"): (202, {"idempotency-key", "if-match!"}),
    ("GET", "/v1/clusters/{id}/kubeconfig"): (200, set()),
    ("GET", "/v1/operations"): (200, set()),
    ("GET", "/v1/operations/{id}"): (200, set()),
    ("POST", "/v1/operations/{id}:wait"): (200, set()),
    ("POST", "/v1/operations/{id}:cancel"): (202, {"idempotency-key", "if-match"}),
    ("GET", "/v1/quotas"): (200, set()),
    ("GET", "/v1/quotas/{metric}"): (200, set()),
    ("POST", "/v1/secrets"): (201, {"idempotency-key"}),
    ("GET", "/v1/secrets"): (200, set()),
    ("GET", "/v1/secrets/{id}"): (200, set()),
    ("PATCH", "/v1/secrets/{id}"): (200, {"if-match!"}),
    ("DELETE", "/v1/secrets/{id}"): (204, {"if-match!"}),
    ("POST", "/v1/secrets/{id}:undelete"): (200, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/secrets/validate_token"): (200, set()),
    ("POST", "/v1/secrets/{id}/versions"): (201, {"idempotency-key"}),
    ("GET", "/v1/secrets/{id}/versions"): (200, set()),
    ("GET", "/v1/secrets/{id}/versions/{vid}"): (200, set()),
    ("POST", "/v1/secrets/{id}/versions/{vid}:enable"): (200, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/secrets/{id}/versions/{vid}:disable"): (200, {"if-match!"}),
    ("POST", "/v1/secrets/{id}/versions/{vid}:destroy"): (200, {"if-match!"}),
    ("POST", "/v1/secrets/{id}/versions/{vid}:access"): (200, set()),
    ("POST", "/v1/clusters/{id}/worker_bootstraps"): (201, {"idempotency-key"}),
    ("GET", "/v1/clusters/{id}/worker_bootstraps"): (200, set()),
    ("GET", "/v1/clusters/{id}/worker_bootstraps/{wbs_id}"): (200, set()),
    ("POST", "/v1/clusters/{id}/worker_bootstraps/{wbs_id}:revoke"): (
        202,
        {"idempotency-key", "if-match!"},
    ),
    ("POST", "/v1/machines"): (202, {"idempotency-key"}),
    ("GET", "/v1/machines"): (200, set()),
    ("GET", "/v1/machines/{id}"): (200, set()),
    ("PATCH", "/v1/machines/{id}"): (200, {"idempotency-key", "if-match!"}),
    ("DELETE", "/v1/machines/{id}"): (202, {"idempotency-key!", "if-match!"}),
    ("POST", "/v1/machines/{id}:suspend"): (202, {"idempotency-key!", "if-match!"}),
    ("POST", "/v1/machines/{id}:resume"): (202, {"idempotency-key!", "if-match!"}),
    ("POST", "/v1/machines/{id}/drift_reports"): (201, {"idempotency-key"}),
    ("GET", "/v1/machines/{id}/drift_reports"): (200, set()),
    ("GET", "/v1/machines/{id}/drift_reports/{report_id}"): (200, set()),
    ("GET", "/v1/machines/{id}/suspension_events"): (200, set()),
    ("GET", "/v1/machines/{id}/suspension_events/{event_id}"): (200, set()),
    ("GET", "/v1/clusters/{id}/compute_settings"): (200, set()),
    ("PATCH", "/v1/clusters/{id}/compute_settings"): (200, {"if-match!"}),
    ("POST", "/v1/compute_configs"): (201, {"idempotency-key"}),
    ("GET", "/v1/compute_configs"): (200, set()),
    ("GET", "/v1/compute_configs/{id}"): (200, set()),
    ("PATCH", "/v1/compute_configs/{id}"): (200, {"idempotency-key", "if-match!"}),
    ("DELETE", "/v1/compute_configs/{id}"): (200, {"idempotency-key", "if-match!"}),
    ("GET", "/v1/installs"): (200, set()),
    ("POST", "/v1/installs"): (202, {"idempotency-key"}),
    ("GET", "/v1/installs/{id}"): (200, set()),
    ("DELETE", "/v1/installs/{id}"): (202, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/installs/{id}:update"): (202, {"idempotency-key!", "if-match!"}),
    ("POST", "/v1/installs/{id}:restore"): (202, {"idempotency-key!", "if-match!"}),
    ("PATCH", "/v1/installs/{id}/automatic_updates"): (200, {"idempotency-key!", "if-match!"}),
    ("POST", "/v1/installs/{id}/renders"): (201, {"idempotency-key"}),
    ("GET", "/v1/installs/{id}/renders"): (200, set()),
    ("GET", "/v1/installs/{id}/renders/{render_id}"): (200, set()),
    ("GET", "/v1/installs/{id}/status"): (200, set()),
    ("GET", "/v1/installs/{id}/pods"): (200, set()),
    ("GET", "/v1/installs/{id}/logs"): (200, set()),
    ("GET", "/v1/packages"): (200, set()),
    ("POST", "/v1/packages"): (202, {"idempotency-key"}),
    ("GET", "/v1/packages/{id}"): (200, set()),
    ("DELETE", "/v1/packages/{id}"): (204, {"idempotency-key", "if-match!"}),
    ("GET", "/v1/packages/{id}/versions"): (200, set()),
    ("POST", "/v1/packages/{id}/versions"): (201, set()),
    ("GET", "/v1/packages/{id}/versions/{version_id}"): (200, set()),
    ("GET", "/v1/packages/{id}/versions/{version_id}/inputs"): (200, set()),
    ("POST", "/v1/packages:import"): (201, {"idempotency-key"}),
    ("GET", "/v1/products"): (200, set()),
    ("POST", "/v1/products"): (201, {"idempotency-key"}),
    ("GET", "/v1/products/{id}"): (200, set()),
    ("PATCH", "/v1/products/{id}"): (200, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/products/{id}:archive"): (200, {"idempotency-key", "if-match!"}),
    ("POST", "/v1/products/{id}:unarchive"): (200, {"idempotency-key", "if-match!"}),
    ("GET", "/v1/registry_connections"): (200, set()),
    ("POST", "/v1/registry_connections"): (201, {"idempotency-key"}),
    ("DELETE", "/v1/registry_connections/{id}"): (204, set()),
}

# What the contract does not name: ours.
EXTENSIONS = {
    ("GET", "/v1/audit_events"),
    ("GET", "/v1/workspaces/{id}/secret_policy"),
    ("PATCH", "/v1/workspaces/{id}/secret_policy"),
    ("POST", "/v1/secrets/{id}:requestPurge"),
    ("POST", "/v1/secrets/{id}:approvePurge"),
    ("POST", "/v1/secrets/unwrap"),
    ("GET", "/v1/secrets/{id}/references"),
    ("PUT", "/v1/secrets/{id}/references/{consumer_type}/{consumer_id}"),
    ("DELETE", "/v1/secrets/{id}/references/{consumer_type}/{consumer_id}"),
    ("POST", "/v1/secrets/{id}/references/{consumer_type}/{consumer_id}:acknowledge"),
    ("GET", "/v1/secrets/{id}/rotation"),
    ("PUT", "/v1/secrets/{id}/rotation"),
    ("DELETE", "/v1/secrets/{id}/rotation"),
    ("POST", "/v1/secrets/{id}:rotate"),
    ("POST", "/v1/machines/{id}:cordon"),
    ("POST", "/v1/machines/{id}:uncordon"),
    ("POST", "/v1/machines/{id}:replace"),
    ("GET", "/v1/machines/{id}/inventory"),
    ("GET", "/v1/leaks"),
    ("GET", "/v1/workspaces/{id}/compute_policy"),
    ("PATCH", "/v1/workspaces/{id}/compute_policy"),
    ("POST", "/v1/compute_configs/{id}:preflight"),
    ("GET", "/v1/compute_configs/{id}/instance_types"),
    ("GET", "/v1/nodes/authority"),
    ("GET", "/v1/nodes/script"),
    ("POST", "/v1/nodes"),
    ("POST", "/v1/nodes/self:report"),
    ("POST", "/v1/nodes/self:resume"),
    ("POST", "/v1/nodes/self:tokens"),
    ("GET", "/v1/artifacts/{sha256}"),
    ("PATCH", "/v1/installs/{id}"),
    ("POST", "/v1/installs/{id}:hold"),
    ("POST", "/v1/installs/{id}:release_hold"),
    ("POST", "/v1/installs/{id}:approve"),
    ("GET", "/v1/installs/{id}/renders/{render_id}/plan"),
    ("GET", "/v1/installs/{id}/renders/{render_id}/diff"),
    ("GET", "/v1/installs/{id}/rollout_plan"),
    ("GET", "/v1/installs/{id}/drift"),
    ("POST", "/v1/installs/{id}:detect_drift"),
    ("POST", "/v1/grants"),
    ("GET", "/v1/grants"),
    ("GET", "/v1/grants/{id}"),
    ("DELETE", "/v1/grants/{id}"),
    ("POST", "/v1/grants/{id}:consent"),
    ("POST", "/v1/rollouts"),
    ("GET", "/v1/rollouts"),
    ("GET", "/v1/rollouts/{id}"),
    ("GET", "/v1/rollouts/{id}/targets"),
    ("GET", "/v1/rollouts/{id}/events"),
    ("POST", "/v1/rollouts/{id}:approve"),
    ("POST", "/v1/rollouts/{id}:pause"),
    ("POST", "/v1/rollouts/{id}:resume"),
    ("POST", "/v1/rollouts/{id}:cancel"),
    ("POST", "/v1/rollouts/{id}:rollback"),
    ("POST", "/v1/emergency_stops"),
    ("GET", "/v1/emergency_stops"),
    ("GET", "/v1/emergency_stops/{id}"),
    ("POST", "/v1/emergency_stops/{id}:lift"),
}


def body_of(answer: httpx.Response, status: int, shape: contract.Shape) -> JSON:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: JSON = answer.json()
    assert contract.differences(body, shape) == [], body
    return body


@pytest.mark.parametrize(("method", "path"), PUBLISHED)
async def test_the_document_names_the_route_with_its_status_and_headers(
    gate: Gate, method: str, path: str
) -> None:
    described = openapi_of(gate.app)["paths"][path][method.lower()]
    status, headers = PUBLISHED[method, path]
    assert [code for code in described["responses"] if code.startswith("2")] == [str(status)]
    taken = {
        parameter["name"] + ("!" if parameter["required"] else "")
        for parameter in described.get("parameters", [])
        if parameter["in"] == "header"
    }
    assert headers | {"akua-context"} <= taken
    for failure, answer in described["responses"].items():
        if not failure.startswith("2"):
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}, failure


async def test_the_document_names_no_other_route_of_v1(gate: Gate) -> None:
    found = {
        (method.upper(), path)
        for path, operations in openapi_of(gate.app)["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    }
    assert found == set(PUBLISHED) | EXTENSIONS


async def test_workspaces_have_their_shape(gate: Gate) -> None:
    person = gate.new_person()
    made = await person.post(
        "/v1/workspaces", {"name": "Ünï corp", "slug": f"s{person.user_id[-9:]}"}
    )
    workspace = body_of(made, 201, contract.WORKSPACE)
    path = f"/v1/workspaces/{workspace['id']}"
    assert body_of(await person.get(path), 200, contract.WORKSPACE) == workspace
    page = contract.page_of(contract.shape(contract.WORKSPACE))
    listed = body_of(await person.get("/v1/workspaces"), 200, page)
    assert workspace in listed["data"]
    changed = await person.call(
        "PATCH", path, json={"name": "New"}, headers={"if-match": workspace["etag"]}
    )
    body = body_of(changed, 200, contract.WORKSPACE)
    assert (body["name"], body["slug"]) == ("New", workspace["slug"])
    assert body["etag"] != workspace["etag"]


async def test_members_have_their_shape(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    path = f"/v1/workspaces/{owner.workspace}/members"
    added = await owner.post(path, {"user_id": person.user_id, "role": "member"})
    member = body_of(added, 201, contract.WORKSPACE_MEMBER)
    page = contract.page_of(contract.shape(contract.WORKSPACE_MEMBER))
    assert member in body_of(await owner.get(path), 200, page)["data"]
    own = f"{path}/{person.user_id}"
    changed = await owner.call("PATCH", own, json={"role": "admin"})
    assert body_of(changed, 200, contract.WORKSPACE_MEMBER)["role"] == "admin"
    removed = await owner.call("DELETE", own)
    assert (removed.status_code, removed.content) == (204, b"")


async def test_api_tokens_have_their_shape(gate: Gate) -> None:
    person = gate.new_person()
    made = await person.post("/v1/api_tokens", {"name": "ci", "expires_at": 4102444800})
    token = body_of(made, 201, contract.CREATED_API_TOKEN)
    page = contract.page_of(contract.shape(contract.API_TOKEN))
    listed = body_of(await person.get("/v1/api_tokens"), 200, page)
    assert listed["data"][0]["expires_at"] == 4102444800
    deleted = await person.call("DELETE", f"/v1/api_tokens/{token['id']}")
    assert (deleted.status_code, deleted.content) == (204, b"")


async def test_regions_have_their_shape(gate: Gate) -> None:
    person = gate.new_person()
    made = await person.post("/v1/regions", {"name": "n" * 100, "icon": "https://example.test/i"})
    region = body_of(made, 201, contract.REGION)
    page = contract.page_of(contract.shape(contract.REGION))
    assert body_of(await person.get("/v1/regions"), 200, page)["data"] == [region]


async def test_clusters_and_their_operations_have_their_shape(gate: Gate) -> None:
    person = gate.new_person()
    region = await gate.new_region(person)
    made = await person.post("/v1/clusters", {"name": "c", "region_id": region})
    created = body_of(made, 202, contract.OPERATION)
    path = f"/v1/clusters/{created['owner_id']}"
    pending = body_of(await person.get(path), 200, contract.CLUSTER)
    assert (pending["state"], pending["reconciling"]) == ("pending", True)
    await gate.reach_active(person, created["id"])
    await see_operation(person, created["id"], "cluster.create")
    cluster = body_of(await person.get(path), 200, contract.CLUSTER)
    page = contract.page_of(contract.shape(contract.CLUSTER))
    assert body_of(await person.get("/v1/clusters"), 200, page)["data"] == [cluster]
    for verb, reach in (("suspend", gate.reach_suspended), ("resume", gate.reach_active)):
        etag = {"if-match": (await person.get(path)).json()["etag"]}
        asked = body_of(await person.post(f"{path}:{verb}", headers=etag), 202, contract.OPERATION)
        await reach(person, asked["id"])
        await see_operation(person, asked["id"], f"cluster.{verb}")
    etag = {"if-match": (await person.get(path)).json()["etag"]}
    renamed = await person.call("PATCH", path, json={"name": "d"}, headers=etag)
    etag = {"if-match": body_of(renamed, 200, contract.CLUSTER)["etag"]}
    deleted = body_of(await person.call("DELETE", path, headers=etag), 202, contract.OPERATION)
    assert (await person.get(path)).json()["state"] == "deleting"
    cancelled = await person.post(f"/v1/operations/{deleted['id']}:cancel")
    body_of(cancelled, 202, contract.OPERATION)


async def see_operation(person: Person, operation_id: str, operation_type: str) -> None:
    path = f"/v1/operations/{operation_id}"
    operation = body_of(await person.get(path), 200, contract.OPERATION_WITH_STEPS)
    assert (operation["state"], operation["done"]) == ("SUCCEEDED", True)
    assert operation["response"]["type"] == operation["metadata"]["type"] == operation_type
    assert operation["steps"]
    waited = await person.post(f"{path}:wait", params={"timeout": 1})
    assert body_of(waited, 200, contract.OPERATION_WITH_STEPS) == operation
    page = contract.page_of(contract.shape(contract.OPERATION))
    listed = body_of(await person.get("/v1/operations"), 200, page)["data"]
    assert listed[0]["id"] == operation_id
    assert "steps" not in listed[0]


async def test_quotas_have_their_shape(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    page = contract.page_of(contract.shape(contract.QUOTA))
    listed = body_of(await person.get("/v1/quotas"), 200, page)["data"]
    narrowed = await person.get("/v1/quotas", params={"cluster_id": cluster["id"]})
    *same, of_cluster = body_of(narrowed, 200, page)["data"]
    assert same == listed
    assert (of_cluster["metric"], of_cluster["scope"]) == ("compute/machines", "cluster")
    for quota in listed:
        metric = urllib.parse.quote(quota["metric"], safe="")
        assert body_of(await person.get(f"/v1/quotas/{metric}"), 200, contract.QUOTA) == quota
    clusters = next(quota for quota in listed if quota["metric"] == "compute/clusters")
    assert clusters["usage"] == 1
    assert clusters["remaining"] == clusters["limit"] - 1


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_the_document_and_its_page_need_no_token(gate: Gate, prefix: str) -> None:
    document = await gate.client.get(f"{prefix}/openapi.json")
    assert document.json()["openapi"].startswith("3.")
    page = await gate.client.get(f"{prefix}/docs")
    assert page.headers["content-type"].startswith("text/html")
    # Nothing on the page comes from anywhere else.
    assert "//" not in page.text.replace("// Text", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_root_leads_to_the_page(gate: Gate) -> None:
    answer = await gate.client.get("/", follow_redirects=True)
    assert (answer.url.path, answer.status_code) == ("/docs", 200)


async def test_health_and_readiness(gate: Gate) -> None:
    assert (await gate.client.get("/healthz")).json() == {"status": "ok"}
    ready = await gate.client.get("/readyz")
    assert ready.json() == {
        "status": "ok",
        "parts": {"postgresql": "ok", "temporal": "ok", "openbao": "ok"},
    }


async def test_worker_bootstraps_and_machines_have_their_shape(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_cluster_with_authorities(person)
    path = f"/v1/clusters/{cluster['id']}/worker_bootstraps"
    told_once = {**contract.WORKER_BOOTSTRAP, **contract.WORKER_BOOTSTRAP_ONCE}
    made = body_of(await person.post(path, {}), 201, told_once)
    bootstraps = contract.page_of(contract.shape(contract.WORKER_BOOTSTRAP))
    body_of(await person.get(path), 200, bootstraps)
    based_on = {"if-match": made["etag"]}
    answer = await person.post(f"{path}/{made['id']}:revoke", headers=based_on)
    revoked = body_of(answer, 202, contract.OPERATION)
    body_of(await person.get(f"{path}/{made['id']}"), 200, contract.WORKER_BOOTSTRAP)
    body_of(await person.get(f"/v1/operations/{revoked['id']}"), 200, contract.OPERATION_WITH_STEPS)
    _, machine = await new_machine(gate, person, cluster)
    machines = contract.page_of(contract.shape(contract.MACHINE, *contract.MACHINE_OPTIONAL))
    body_of(await person.get("/v1/machines"), 200, machines)
    body_of(await person.get("/v1/machines", params={"view": "basic"}), 200, machines)
    own = f"/v1/machines/{machine['id']}"
    assert (await person.get(own)).json() == machine
    headers = {"if-match": machine["etag"], "idempotency-key": "x"}
    named = await person.call("PATCH", own, json={"name": "y" * 120}, headers=headers)
    headers = {"if-match": named.json()["etag"], "idempotency-key": "z"}
    deleted = await person.call("DELETE", own, headers=headers)
    body_of(deleted, 202, contract.MACHINE_OPERATION)
    for operation in (await person.get("/v1/operations")).json()["data"]:
        assert contract.differences(operation, contract.OPERATION) == []


async def test_machines_in_clouds_and_their_configs_have_their_shape(gate: Gate) -> None:
    compute = await new_compute(gate)
    person = compute.person
    assert contract.differences(compute.config, contract.COMPUTE_CONFIG) == []
    page = contract.page_of(contract.shape(contract.COMPUTE_CONFIG))
    assert body_of(await person.get("/v1/compute_configs"), 200, page)["data"] == [compute.config]
    settings = f"/v1/clusters/{compute.cluster['id']}/compute_settings"
    found = body_of(await person.get(settings), 200, contract.CLUSTER_COMPUTE_SETTINGS)
    etag = {"if-match": found["etag"]}
    changed = await person.call("PATCH", settings, json={"max_machines": 3}, headers=etag)
    body_of(changed, 200, contract.CLUSTER_COMPUTE_SETTINGS)
    body_of(await compute.ask(name="web"), 202, contract.MACHINE_OPERATION)
    machine = await compute.ready_machine()
    suspended = await compute.call(machine, "suspend")
    body_of(suspended, 202, contract.MACHINE_OPERATION)
    machines = contract.page_of(contract.shape(contract.MACHINE, "name", "current_suspension"))
    listed = body_of(await person.get("/v1/machines"), 200, machines)["data"]
    assert "current_suspension" in listed[0]
    events = f"/v1/machines/{machine['id']}/suspension_events"
    shape = contract.page_of(contract.shape(contract.SUSPENSION_EVENT, "resumed_at"))
    body_of(await person.get(events), 200, shape)
