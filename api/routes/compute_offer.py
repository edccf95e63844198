"""What the account of a compute config offers: asked of the provider, before anything is made."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import asyncio
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import compute_changes, machine_plans
from api.errors import documented
from api.fields import Body, Identifier, check_id, not_found
from api.machine_plans import MachineRequest
from api.machine_requests import Count, Fallbacks, InstanceType, fallbacks_of
from api.node_endpoint import NodeEndpoint
from api.places import check_allowed
from api.scope import Context, RequestScope, open_scope
from domain.caller import Role
from domain.cloud import InstanceType as OfferedType
from domain.cloud import Provider
from domain.compute import Choice, PlaceOffer, PreflightRequest, PreflightResult
from domain.identifiers import Prefix
from infra.database.queries.compute import find_config
from infra.database.tables import ComputeConfigRow
from infra.temporal.waits import preflight

router = APIRouter(prefix="/compute_configs", tags=["compute_configs"])

_FAILURES: Final = documented(403, 404, 409, 422, 504)


class PreflightBody(Body):
    """Machines as POST /machines would be asked for them."""

    instance_type: InstanceType
    count: Count = 1
    fallbacks: Fallbacks | None = None


class InstanceTypeBody(TypedDict):
    """A size of machine; where `price_per_hour` is null, `price_unknown` may say why."""

    name: str
    arch: str
    architecture: str
    cpu: float
    memory_mib: int
    storage_mib: int
    price_per_hour: float | None
    currency: str | None
    price_unknown: str | None
    available: bool


class InstanceTypeList(TypedDict):
    """All of them, in the config's place."""

    data: list[InstanceTypeBody]
    has_more: bool
    next_cursor: None


class OfferedChoice(TypedDict):
    """One choice of the request. Not `known`: the place has no such type."""

    place: str
    instance_type: str
    known: bool
    available: bool
    price_per_hour: float | None
    currency: str | None
    price_unknown: str | None


class AllowanceBody(TypedDict):
    """How much more the account may have in the first place; null: the provider does not tell."""

    machines_left: int | None
    cpus_left: int | None


class PreflightAnswer(TypedDict):
    """What the provider says about the choices of a request, best first, and the account."""

    compute_config_id: str
    provider: Provider
    count: int
    choices: list[OfferedChoice]
    allowance: AllowanceBody


@router.post("/{id}:preflight", response_model=PreflightAnswer, responses=_FAILURES)
async def preflight_machines(
    request: Request, context: Context, config_id: Identifier, body: PreflightBody
) -> Response:
    """Ask the provider about machines before they are created: price, room, allowance."""
    wanted = MachineRequest(
        compute_config_id=config_id,
        instance_type=body.instance_type,
        count=body.count,
        name=None,
        fallbacks=fallbacks_of(body.fallbacks, "body"),
    )
    async with open_scope(request, context) as scope:
        config = await _usable(scope, config_id, "compute_config.preflight")
        choices = machine_plans.choices_of(config, wanted)
        await check_allowed(scope, config.provider, [choice.place for choice in choices])
    # No transaction is held while the provider is asked.
    offers = await _ask(
        scope,
        config,
        [choice.place for choice in choices],
        [choice.instance_type for choice in choices],
    )
    await _check_platforms(request, choices, offers)
    by_place = {offer.place: offer for offer in offers.places}
    first = by_place.get(choices[0].place, PlaceOffer(place=choices[0].place)).allowance
    answer = PreflightAnswer(
        compute_config_id=config.id,
        provider=config.provider,
        count=body.count,
        choices=[_offered(choice, by_place.get(choice.place)) for choice in choices],
        allowance=AllowanceBody(machines_left=first.machines_left, cpus_left=first.cpus_left),
    )
    return JSONResponse(answer)


@router.get("/{id}/instance_types", response_model=InstanceTypeList, responses=_FAILURES)
async def list_instance_types(
    request: Request, context: Context, config_id: Identifier
) -> Response:
    """List the sizes of machines that the provider has in the config's place."""
    async with open_scope(request, context) as scope:
        config = await _usable(scope, config_id, "compute_config.instance_types")
    offers = await _ask(scope, config, [config.provider_config["region"]])
    types = [each for offer in offers.places for each in offer.instance_types]
    listed = InstanceTypeList(
        data=[_type_body(each) for each in types], has_more=False, next_cursor=None
    )
    return JSONResponse(listed)


async def _usable(scope: RequestScope, config_id: str, action: str) -> ComputeConfigRow:
    scope.require(Role.ADMIN, action, resource_type="compute_config", resource_id=config_id)
    config = await find_config(scope.session, check_id(Prefix.COMPUTE_CONFIG, config_id))
    if config is None:
        raise not_found(Prefix.COMPUTE_CONFIG)
    await compute_changes.check_usable(scope, config)
    return config


async def _ask(
    scope: RequestScope,
    config: ComputeConfigRow,
    places: Sequence[str],
    instance_types: Sequence[str] = (),
) -> PreflightResult:
    wanted = PreflightRequest(
        workspace_id=config.workspace_id,
        compute_config_id=config.id,
        places=list(dict.fromkeys(places)),
        instance_types=list(dict.fromkeys(instance_types)),
        caller=scope.caller,
    )
    client = await scope.clients.temporal.client()
    return await preflight(client, scope.caller.request_id or "", wanted)


async def _check_platforms(
    request: Request, choices: Sequence[Choice], offers: PreflightResult
) -> None:
    """See that there are programs for the processors of the types that are asked for.

    Raises:
        BulkheadError: FAILED_PRECONDITION when servers of one of them could never join.
    """
    nodes: NodeEndpoint = request.app.state.nodes
    supported = await asyncio.to_thread(nodes.supported)
    wanted = {choice.instance_type for choice in choices}
    architectures = {
        one.architecture
        for offer in offers.places
        for one in offer.instance_types
        if one.name in wanted
    }
    for architecture in sorted(architectures):
        # Where there are none at all, a create says so.
        if supported and f"linux/{architecture}" not in supported:
            await asyncio.to_thread(nodes.artifacts_for, f"linux/{architecture}")


def _offered(choice: Choice, offer: PlaceOffer | None) -> OfferedChoice:
    types = [] if offer is None else offer.instance_types
    found = next((each for each in types if each.name == choice.instance_type), None)
    return OfferedChoice(
        place=choice.place,
        instance_type=choice.instance_type,
        known=found is not None,
        available=found is not None and found.available,
        price_per_hour=None if found is None else found.price_per_hour,
        currency=None if found is None else found.currency,
        price_unknown=None if found is None else found.price_unknown,
    )


def _type_body(found: OfferedType) -> InstanceTypeBody:
    return InstanceTypeBody(
        name=found.name,
        arch=found.architecture,
        architecture=found.architecture,
        cpu=found.cpu,
        memory_mib=found.memory_mib,
        storage_mib=found.storage_mib,
        price_per_hour=found.price_per_hour,
        currency=found.currency,
        price_unknown=found.price_unknown,
        available=found.available,
    )
