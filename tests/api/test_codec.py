"""The codec server opens payloads for whoever administers the workspace that they are of."""

import base64
import json
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import DataConverter, WorkflowSerializationContext

from api.middleware import MAXIMUM_BODY_BYTES
from domain.caller import Role
from tests.api.gate import NAMESPACE, Gate, Person, a_token_of_nobody

PLAIN = DataConverter.default.payload_converter.to_payloads(["a word"])[0]


def body_of(*payloads: Payload) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(Payloads(payloads=payloads))
    return found


def opened(answer: httpx.Response) -> list[object]:
    assert answer.status_code == 200, answer.text
    payloads = json_format.Parse(answer.text, Payloads())
    return [json.loads(payload.data) for payload in payloads.payloads]


async def sealed_for(gate: Gate, workflow_id: str) -> Payload:
    context = WorkflowSerializationContext(namespace=NAMESPACE, workflow_id=workflow_id)
    (payload,) = await gate.clients.temporal.codec.with_context(context).encode([PLAIN])
    return payload


async def input_of(gate: Gate, person: Person) -> tuple[dict[str, Any], Payload]:
    """Ask for a cluster and return its operation and what Temporal keeps as the input."""
    operation = await gate.new_cluster(person)
    workflow = await gate.workflow(operation)
    assert workflow is not None
    client = await gate.clients.temporal.client()
    history = await client.get_workflow_handle(workflow.id).fetch_history()
    (payload,) = history.events[0].workflow_execution_started_event_attributes.input.payloads
    return operation, payload


async def test_an_operations_input_is_opened_for_its_workspace_alone(gate: Gate) -> None:
    owner = gate.new_person()
    operation, payload = await input_of(gate, owner)
    assert operation["owner_id"].encode() not in payload.data
    path = "/codec/decode?preserveStorageRefs=true"
    headers = {"x-namespace": NAMESPACE}
    answer = await owner.post(path, body_of(payload, PLAIN), headers=headers)
    first, second = opened(answer)
    assert isinstance(first, dict)
    assert first["operation_id"] == operation["id"]
    assert second == "a word"
    assert answer.headers["cache-control"] == "no-store"

    stranger = gate.new_person()
    assert (await stranger.post(path, body_of(payload))).status_code == 404
    member = gate.new_person(owner.workspace, Role.MEMBER)
    assert (await member.post(path, body_of(payload))).status_code == 403
    assert ("payloads.decode", "denied", owner.workspace) in gate.audit(owner.workspace)
    administrator = gate.new_person(role=Role.OWNER)
    gate.join(administrator, owner.workspace, Role.ADMIN)
    # Of their workspaces the payload says in which one to look.
    assert opened(await administrator.post(path, body_of(payload)))
    assert (await administrator.get("/codec")).status_code == 200


async def test_without_a_good_token_nothing_is_opened(gate: Gate) -> None:
    _, payload = await input_of(gate, gate.new_person())
    for authorization in ("", "Basic !", f"Bearer {a_token_of_nobody()}"):
        answer = await gate.client.post(
            "/codec/decode", json=body_of(payload), headers={"authorization": authorization}
        )
        assert answer.status_code == 401, authorization


@pytest.mark.parametrize(
    "workflow_id",
    [
        "reconcile-operations-2026-01-31T10:00:00Z",
        "cluster/{other}/create/{operation}",
        "secret/sec_00000000000000000000000000000000/rotate",
        "workspace/ws_00000000000000000000000000000000/sweep",
        "workspace",
        "secret/sec_\x00",
        "",
    ],
)
async def test_what_belongs_to_no_resource_of_the_workspace_is_not_found(
    gate: Gate, workflow_id: str
) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    named = workflow_id.format(operation=operation["id"], other="clu_" + "0" * 32)
    payload = await sealed_for(gate, named)
    assert (await person.post("/codec/decode", body_of(payload))).status_code == 404
    mixed = body_of(PLAIN, await sealed_for(gate, f"workspace/{person.workspace}/x"), payload)
    assert (await person.post("/codec/decode", mixed)).status_code == 404


async def test_a_payload_that_was_given_another_workflow_is_refused(gate: Gate) -> None:
    owner, thief = gate.new_person(), gate.new_person()
    _, payload = await input_of(gate, owner)
    payload.metadata["bulkhead-workflow"] = f"workspace/{thief.workspace}/x".encode()
    answer = await thief.post("/codec/decode", body_of(payload))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["metadata"]["reason"] == "INVALID_ARGUMENT"


async def test_bodies_that_are_no_payloads_are_refused(gate: Gate) -> None:
    person = gate.new_person()
    bodies: list[object] = [[], {"payloads": [{"data": 5}]}, "payloads", {"payloads": 5}]
    for body in bodies:
        assert (await person.post("/codec/decode", body)).status_code == 400, body
    half_a_pair = b'{"\\ud800": 1}'
    refused = await person.call("POST", "/codec/decode", content=half_a_pair)
    assert refused.status_code == 400
    large = {"payloads": [{"data": "A" * MAXIMUM_BODY_BYTES}]}
    assert (await person.post("/codec/decode", large)).status_code == 413
    many = [await sealed_for(gate, f"workspace/{person.workspace}/{n}") for n in range(21)]
    assert (await person.post("/codec/decode", body_of(*many))).status_code == 422
    elsewhere = await person.post(
        "/codec/decode", body_of(PLAIN), headers={"x-namespace": "elsewhere"}
    )
    assert elsewhere.status_code == 404


async def test_a_browser_signs_in_and_only_the_ui_reads_the_answers(gate: Gate) -> None:
    person = gate.new_person()
    assert (await gate.client.get("/codec")).headers["www-authenticate"].startswith("Basic ")
    signed_in = {
        "authorization": "Basic " + base64.b64encode(f"any:{person.token}".encode()).decode()
    }
    assert (await gate.client.get("/codec", headers=signed_in)).status_code == 200
    _, payload = await input_of(gate, person)
    for origin, allowed in ((gate.servers.temporal_ui, True), ("https://evil.example", False)):
        headers = {**signed_in, "origin": origin}
        preflight = await gate.client.options("/codec/decode", headers={"origin": origin})
        answer = await gate.client.post("/codec/decode", json=body_of(payload), headers=headers)
        assert opened(answer)
        for each in (preflight, answer):
            assert ("access-control-allow-origin" in each.headers) is allowed
            assert each.headers["vary"] == "origin"
    # Elsewhere in the API such a sign-in counts for nothing.
    assert (await gate.client.get("/v1/clusters", headers=signed_in)).status_code == 401
