"""Requests made up from the application's own document: no answer is a 5xx or of another shape."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.openapi import openapi_of
from tests.api import contract
from tests.api.compute import HCLOUD, config_body
from tests.api.gate import Gate, Person
from tests.api.installs import new_customer
from tests.api.keeper import Keeper, new_keeper, ok
from tests.api.own_server import new_machine
from tests.api.process import Process, answers, running_process
from tests.api.test_contract import PUBLISHED

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
async def process(gate: Gate) -> Any:  # noqa: ANN401 - a generator
    with running_process(gate, https_address=None) as found:
        await answers(found.http)
        yield found


@pytest.fixture(scope="module")
async def keeper(gate: Gate) -> Keeper:
    return await new_keeper(gate)


@pytest.fixture(scope="module")
async def person(keeper: Keeper) -> Person:
    return keeper.person


@pytest.fixture(scope="module")
async def identifiers(gate: Gate, person: Person, keeper: Keeper) -> dict[str, str]:
    """Make one thing of each kind whose routes take an id."""
    cluster = await gate.new_cluster_with_authorities(person)
    _, machine = await new_machine(gate, person, cluster)
    operations = (await person.get("/v1/operations")).json()["data"]
    token = (await person.post("/v1/api_tokens", {"name": "x"})).json()
    secret = await keeper.create("hcloud", kind=HCLOUD, value="x" * 64)
    config = ok(await person.post("/v1/compute_configs", config_body(secret)), 201)
    install = await (await new_customer(gate, person=person)).new_deployed()
    return {
        "compute_configs": config["id"],
        "installs": install["id"],
        "workspaces": person.workspace,
        "clusters": cluster["id"],
        "machines": machine["id"],
        # One that has ended: `:wait` for another takes its time.
        "operations": next(each["id"] for each in operations if each["done"]),
        "api_tokens": token["id"],
        "secrets": (await keeper.create())["id"],
    }


def ask(
    gate: Gate, process: Process, person: Person, method: str, path: str, identifier: str | None
) -> None:
    """Send requests that fit the document's idea of a route, and others that do not."""
    operation = schemathesis.openapi.from_dict(openapi_of(gate.app))[path][method]

    def check(case: Any) -> None:  # noqa: ANN401 - a generic class that leaves its kind open
        case.headers["authorization"] = f"Bearer {person.token}"
        case.headers.pop("akua-context", None)
        if identifier is not None:
            case.path_parameters["id"] = identifier
        answer = case.call(base_url=process.http)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert contract.differences(answer.json(), contract.ERROR) == []

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        strategy = operation.as_strategy(generation_mode=mode)
        BOUNDED(given(case=strategy)(check))()


@pytest.mark.parametrize(("method", "path"), PUBLISHED)
def test_whatever_is_asked_for(
    gate: Gate, process: Process, person: Person, method: str, path: str
) -> None:
    ask(gate, process, person, method, path, None)


@pytest.mark.parametrize(("method", "path"), [key for key in PUBLISHED if "{id}" in key[1]])
def test_whatever_is_asked_of_things_that_exist(
    gate: Gate,
    process: Process,
    person: Person,
    identifiers: dict[str, str],
    method: str,
    path: str,
) -> None:
    ask(
        gate,
        process,
        person,
        method,
        path,
        identifiers[path.split("/")[2].split(":", maxsplit=1)[0]],
    )
