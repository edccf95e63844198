"""Compute configs: in whose account, where and from which image machines are made."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Annotated, Any, Final, Literal, NotRequired

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import compute_changes
from api.compute_changes import Credential
from api.credential_waiters import wake_waiters_of
from api.errors import documented
from api.fields import (
    PRINTABLE,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    Name,
    check_id,
    check_visible,
    not_found,
)
from api.idempotency import answer_once
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.places import Place, check_place
from api.quotas import check_quota
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.cloud import Provider
from domain.compute import LARGEST_POOL
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.quota import QuotaMetric
from infra.database.queries.compute import find_config
from infra.database.queries.pages import page_of
from infra.database.tables import ComputeConfigRow
from infra.database.tables.columns import unix, unix_or_none

router = APIRouter(prefix="/compute_configs", tags=["compute_configs"])

_NOUN: Final = "compute_config"

Image = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=PRINTABLE),
    AfterValidator(check_visible),
]
# Shell patterns of instance types, with commas between them.
TypeFilter = Annotated[
    str, StringConstraints(max_length=500, pattern=r"^[A-Za-z0-9*?\[\]!,._ -]*$")
]
Places = Annotated[list[Place], Field(max_length=LARGEST_POOL)]


class ProviderConfigRequest(Body):
    """Where machines are made, and from which image; `fallbacks` are tried after `region`."""

    region: Place
    image: Image
    machine_type_filter: TypeFilter = ""
    fallbacks: Annotated[Places, Field(default_factory=list)]


class ChangeProviderConfigRequest(Body):
    """What shall be different; what is absent stays."""

    region: Place = ""
    image: Image = ""
    machine_type_filter: TypeFilter = ""
    fallbacks: Annotated[Places, Field(default_factory=list)]


class SystemScope(Body):
    """A credential of the platform's own."""

    kind: Literal["system"]


class ByomScope(Body):
    """A credential of the workspace; without a version it follows the secret's `current`."""

    kind: Literal["byom"]
    secret_id: Annotated[str, StringConstraints(min_length=1, max_length=54, pattern=PRINTABLE)]
    secret_version_id: (
        Annotated[str, StringConstraints(min_length=1, max_length=55, pattern=PRINTABLE)] | None
    ) = None


CredentialScope = Annotated[SystemScope | ByomScope, Field(discriminator="kind")]


class CreateComputeConfigRequest(Body):
    """A compute config to be made."""

    name: Name
    provider: Annotated[Provider, Field(strict=False)]
    provider_config: ProviderConfigRequest
    credential_scope: CredentialScope


class ChangeComputeConfigRequest(Body):
    """What shall be different; what is absent stays. The provider stays what it is."""

    name: Name = ""
    provider_config: ChangeProviderConfigRequest | None = None
    credential_scope: CredentialScope | None = None


class ProviderConfigBody(TypedDict):
    """The contract's; `fallbacks` is ours."""

    region: str
    image: str
    machine_type_filter: NotRequired[str]
    fallbacks: NotRequired[list[str]]


class CredentialScopeBody(TypedDict):
    """Where the credential is; never the credential."""

    kind: Literal["byom"]
    secret_id: str
    secret_version_id: NotRequired[str]


class ComputeConfigBody(TypedDict):
    """The contract's ComputeConfig; `looked_at` and `problem` are ours.

    Attributes:
        looked_at: when the account was last looked at, or that was tried; None: not yet.
        problem: why it could not be looked at then; None: it could.
    """

    id: str
    workspace_id: str
    name: str
    provider: Provider
    provider_config: ProviderConfigBody
    credential_scope: CredentialScopeBody
    created_at: int
    updated_at: int
    looked_at: int | None
    problem: str | None
    etag: str


class ComputeConfigList(TypedDict):
    """One page."""

    data: list[ComputeConfigBody]
    has_more: bool
    next_cursor: str | None


@router.post(
    "",
    status_code=201,
    response_model=ComputeConfigBody,
    responses=documented(403, 404, 409, 422),
)
async def create_compute_config(
    request: Request,
    scope: Scope,
    body: CreateComputeConfigRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a compute config with a credential that the workspace has as a secret."""
    scope.require(Role.ADMIN, "compute_config.create", resource_type="workspace")
    credential = _credential_of(body.credential_scope)
    provider_config = _config_of(body.provider, body.provider_config)

    async def effect() -> ComputeConfigBody:
        await check_quota(scope, QuotaMetric.COMPUTE_CONFIGS)
        config = await compute_changes.create(
            scope,
            name=body.name,
            provider=body.provider,
            provider_config=provider_config,
            credential=credential,
        )
        return config_body(config)

    return await answer_once(
        request, scope, idempotency_key, body.model_dump(mode="json"), 201, effect
    )


@router.get("", response_model=ComputeConfigList, responses=documented())
async def list_compute_configs(
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    view: Literal["basic", "full"] = "full",  # noqa: ARG001 - both show all: it is little
) -> Response:
    """List the workspace's compute configs, newest first."""
    before = position_of(cursor, Prefix.COMPUTE_CONFIG)
    page = await page_of(scope.session, ComputeConfigRow, before=before, limit=limit)
    return JSONResponse(page_body(page, config_body))


@router.get("/{id}", response_model=ComputeConfigBody, responses=documented(403, 404))
async def get_compute_config(scope: Scope, config_id: Identifier) -> Response:
    """Get a compute config."""
    config = await find_config(scope.session, check_id(Prefix.COMPUTE_CONFIG, config_id))
    if config is None:
        raise not_found(Prefix.COMPUTE_CONFIG)
    return JSONResponse(config_body(config))


@router.patch("/{id}", response_model=ComputeConfigBody, responses=documented(403, 404, 409, 422))
async def change_compute_config(
    request: Request,
    scope: Scope,
    config_id: Identifier,
    body: ChangeComputeConfigRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change what new machines get, or which version of the credential is used for all."""
    _require_admin(scope, "compute_config.update", config_id)
    changes: dict[str, Any] = body.model_dump(include=body.model_fields_set & {"name"})
    if body.credential_scope is not None:
        changes["credential"] = _credential_of(body.credential_scope)

    async def effect() -> ComputeConfigBody:
        if body.provider_config is not None:
            found = await compute_changes.hold(scope, config_id, if_match)
            changes["provider_config"] = _config_of(found.provider, body.provider_config)
        config = await compute_changes.change(scope, config_id, if_match, changes)
        if "credential" in changes:
            await wake_waiters_of(scope, config.secret_id)
        return config_body(config)

    intent = body.model_dump(mode="json", exclude_unset=True)
    return await answer_once(request, scope, idempotency_key, intent, 200, effect)


@router.delete("/{id}", response_model=ComputeConfigBody, responses=documented(403, 404, 409))
async def delete_compute_config(
    request: Request,
    scope: Scope,
    config_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Delete a compute config that nothing needs any more; its secret stays."""
    _require_admin(scope, "compute_config.delete", config_id)

    async def effect() -> ComputeConfigBody:
        return config_body(await compute_changes.delete(scope, config_id, if_match))

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


def config_body(row: ComputeConfigRow) -> ComputeConfigBody:
    """Render a compute config."""
    credential = CredentialScopeBody(kind="byom", secret_id=row.secret_id)
    if row.secret_version_id is not None:
        credential["secret_version_id"] = row.secret_version_id
    shown = {name: value for name, value in row.provider_config.items() if value}
    return ComputeConfigBody(
        id=row.id,
        workspace_id=row.workspace_id,
        name=row.name,
        provider=row.provider,
        provider_config=ProviderConfigBody(**shown),  # type: ignore[typeddict-item] # as written
        credential_scope=credential,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        looked_at=unix_or_none(row.looked_at),
        problem=row.problem,
        etag=str(row.version),
    )


def _credential_of(scope: SystemScope | ByomScope) -> Credential:
    if isinstance(scope, SystemScope):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "This platform has no cloud account of its own. Store a credential of yours as a "
            "secret, and name it: `{kind: byom, secret_id}`.",
            path=("body", "credential_scope", "kind"),
        )
    return Credential(scope.secret_id, scope.secret_version_id)


def _config_of(
    provider: Provider, wanted: ProviderConfigRequest | ChangeProviderConfigRequest
) -> dict[str, Any]:
    """Return what a request sets, with places that can be of the provider."""
    found = wanted.model_dump(include=wanted.model_fields_set)
    path = ("body", "provider_config")
    if "region" in found:
        check_place(provider, found["region"], (*path, "region"))
    for position, place in enumerate(found.get("fallbacks", ())):
        check_place(provider, place, (*path, "fallbacks", str(position)))
    return found


def _require_admin(scope: RequestScope, action: str, config_id: str) -> None:
    scope.require(Role.ADMIN, action, resource_type=_NOUN, resource_id=config_id)
