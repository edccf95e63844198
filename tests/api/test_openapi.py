"""Requests made up from the application's own document: no answer is a 5xx or of another shape."""

import asyncio
from collections.abc import AsyncIterator, Iterator
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
from domain.identifiers import Prefix
from tests import charts
from tests.api import contract
from tests.api.catalog import running_chart_worker
from tests.api.compute import HCLOUD, config_body
from tests.api.drift import finding
from tests.api.gate import Gate, Person
from tests.api.holdings import TABLES, new_holdings
from tests.api.keeper import Keeper, new_keeper, ok
from tests.api.own_server import new_machine
from tests.api.process import Process, answers, running_process
from tests.api.test_contract import EXTENSIONS, PUBLISHED

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def noun_of(path: str) -> str:
    return path.split("/")[2].split(":", maxsplit=1)[0]


# Of fitting requests and of others each; they are the same in every run.
MANY = pytest.param(25, marks=pytest.mark.full)
EXAMPLES = [15, MANY]
BOUNDED = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
# Of what the contract does not name, the routes of rollouts; fewer requests, for the time's sake.
NOUNS_OF_ROLLOUTS = {"installs", "grants", "rollouts", "emergency_stops"}
ROLLOUTS = sorted(key for key in EXTENSIONS if noun_of(key[1]) in NOUNS_OF_ROLLOUTS)
EXAMPLES_OF_ROLLOUTS = [5, MANY]


@pytest.fixture(scope="module")
async def process(gate: Gate) -> Any:  # noqa: ANN401 - a generator
    with running_process(gate, https_address=None) as found:
        await answers(found.http)
        yield found


@pytest.fixture(scope="module")
def registry() -> Iterator[charts.Registry]:
    with charts.running_registry() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
async def worker(gate: Gate, registry: charts.Registry) -> AsyncIterator[None]:
    async with running_chart_worker(gate, registry.address), finding(gate):
        yield


@pytest.fixture(scope="module")
async def keeper(gate: Gate) -> Keeper:
    return await new_keeper(gate)


@pytest.fixture(scope="module")
async def person(keeper: Keeper) -> Person:
    return keeper.person


@pytest.fixture(scope="module")
async def identifiers(
    gate: Gate, person: Person, keeper: Keeper, registry: charts.Registry
) -> dict[str, str]:
    """Make one thing of each kind whose routes take an id; by nouns, and by names in paths."""
    cluster = await gate.new_cluster_with_authorities(person)
    _, machine = await new_machine(gate, person, cluster)
    operations = (await person.get("/v1/operations")).json()["data"]
    token = (await person.post("/v1/api_tokens", {"name": "x"})).json()
    secret = await keeper.create("hcloud", kind=HCLOUD, value="x" * 64)
    config = ok(await person.post("/v1/compute_configs", config_body(secret)), 201)
    held = (await new_holdings(keeper, registry.url_of("web"))).ids
    return {
        "compute_configs": config["id"],
        **{table: held[prefix] for prefix, table in TABLES.items()},
        "render_id": held[Prefix.RENDER],
        "version_id": held[Prefix.PACKAGE_VERSION],
        "workspaces": person.workspace,
        "clusters": cluster["id"],
        "machines": machine["id"],
        # One that has ended: `:wait` for another takes its time.
        "operations": next(each["id"] for each in operations if each["done"]),
        "api_tokens": token["id"],
        "secrets": (await keeper.create())["id"],
    }


async def ask(*arguments: Any) -> None:  # noqa: ANN401 - those below
    """Send requests while the worker that looks charts up goes on."""
    await asyncio.to_thread(send, *arguments)


def send(
    gate: Gate,
    process: Process,
    person: Person,
    route: tuple[str, str],
    identifiers: dict[str, str],
    examples: int,
) -> None:
    """Send requests that fit the document's idea of a route, and others that do not."""
    method, path = route
    operation = schemathesis.openapi.from_dict(openapi_of(gate.app))[path][method]
    known = {"id": identifiers[noun_of(path)], **identifiers} if identifiers else {}

    def check(case: Any) -> None:  # noqa: ANN401 - a generic class that leaves its kind open
        case.headers["authorization"] = f"Bearer {person.token}"
        case.headers.pop("akua-context", None)
        for name in case.path_parameters.keys() & known.keys():
            case.path_parameters[name] = known[name]
        answer = case.call(base_url=process.http)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert contract.differences(answer.json(), contract.ERROR) == []

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        strategy = operation.as_strategy(generation_mode=mode)
        settings(BOUNDED, max_examples=examples)(given(case=strategy)(check))()


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("method", "path"), PUBLISHED)
async def test_whatever_is_asked_for(
    gate: Gate, process: Process, person: Person, method: str, path: str, examples: int
) -> None:
    await ask(gate, process, person, (method, path), {}, examples)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("method", "path"), [key for key in PUBLISHED if "{id}" in key[1]])
async def test_whatever_is_asked_of_things_that_exist(
    gate: Gate,
    process: Process,
    person: Person,
    identifiers: dict[str, str],
    method: str,
    path: str,
    examples: int,
) -> None:
    await ask(gate, process, person, (method, path), identifiers, examples)


@pytest.mark.parametrize("examples", EXAMPLES_OF_ROLLOUTS)
@pytest.mark.parametrize(("method", "path"), ROLLOUTS)
async def test_whatever_is_asked_about_rollouts(
    gate: Gate,
    process: Process,
    person: Person,
    identifiers: dict[str, str],
    method: str,
    path: str,
    examples: int,
) -> None:
    await ask(gate, process, person, (method, path), identifiers, examples)
