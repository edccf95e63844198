"""Secrets: what is known about them; their values are versions, and never shown here."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field, StringConstraints, model_validator
from sqlalchemy import false
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import secret_changes
from api.errors import documented
from api.fields import (
    PRINTABLE,
    TEXT,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    check_id,
    check_visible,
    not_found,
)
from api.idempotency import answer_once
from api.links import Links
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import Context, RequestScope, Scope
from api.secret_additions import NewSecret
from api.secret_bodies import SecretBody, secret_body
from api.secret_saga import add_version
from domain.caller import Role
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.secret import LONGEST_ALIAS, SecretKind, SecretValue, ValueEncoding
from infra.database.queries.pages import page_of
from infra.database.queries.secret import (
    VersionCounts,
    count_versions,
    find_secret,
    is_shown,
)
from infra.database.tables import SecretRow
from infra.temporal.purge import start_purge

router = APIRouter(prefix="/secrets", tags=["secrets"])

_MAXIMUM_LABELS: Final = 64

# More than a secret can have, so that all of them can be removed at once.
_MAXIMUM_ALIASES_SENT: Final = 100

# The end of the year 9999, the last that a timestamp of ours can name.
_LAST_SECOND: Final = 253402300799

SecretName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE),
    AfterValidator(check_visible),
]
Description = Annotated[str, StringConstraints(max_length=500, pattern=TEXT)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=PRINTABLE)]
LabelValue = Annotated[str, StringConstraints(max_length=200, pattern=PRINTABLE)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=_MAXIMUM_LABELS)]
Attribute = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]
Moment = Annotated[int, Field(ge=0, le=_LAST_SECOND)]

# The value itself is checked where it is read: an error of pydantic's may quote what it checks.
Value = Annotated[str, Field(json_schema_extra={"writeOnly": True})]
Encoding = Annotated[ValueEncoding, Field(strict=False)]

# Which kind each further field belongs to.
_ATTRIBUTES: Final = {
    "aws_access_key_id": SecretKind.AWS,
    "username": SecretKind.OCI_REGISTRY,
}


class CreateSecretRequest(Body):
    """A secret to be made, with the value of its first version."""

    name: SecretName
    kind: Annotated[SecretKind, Field(strict=False)]
    value: Value
    value_encoding: Encoding = ValueEncoding.UTF8
    description: Description | None = None
    labels: Labels = Field(default_factory=dict)
    aws_access_key_id: Attribute | None = None
    username: Attribute | None = None
    expire_time: Moment | None = None

    @model_validator(mode="after")
    def _attributes_fit_the_kind(self) -> Self:
        for name, kind in _ATTRIBUTES.items():
            if getattr(self, name) is not None and self.kind is not kind:
                message = f"`{name}` belongs to secrets of the kind {kind}."
                raise ValueError(message)
        return self


class ChangeSecretRequest(Body):
    """What shall be different; what is absent stays. Aliases are merged, and null removes one."""

    name: SecretName = ""
    description: Description = ""
    labels: Labels = Field(default_factory=dict)
    mime_type: Annotated[str, StringConstraints(max_length=100, pattern=PRINTABLE)] = ""
    version_aliases: Annotated[
        dict[
            Annotated[str, StringConstraints(max_length=LONGEST_ALIAS)],
            Annotated[int, Field(ge=1, le=2**31 - 1)] | None,
        ],
        Field(max_length=_MAXIMUM_ALIASES_SENT),
    ] = Field(default_factory=dict)
    expire_time: Moment | None = None


class ConfirmPurgeRequest(Body):
    """The name of what shall be gone for good, typed by a person."""

    confirm_name: Annotated[str, StringConstraints(max_length=200)]


class SecretList(TypedDict):
    """One page."""

    data: list[SecretBody]
    has_more: bool
    next_cursor: str | None


@router.post("", status_code=201, response_model=SecretBody, responses=documented(403, 409))
async def create_secret(
    request: Request,
    context: Context,
    body: CreateSecretRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a secret with its first version, which becomes `current`."""
    attributes = {name: getattr(body, name) for name in _ATTRIBUTES}
    addition = NewSecret(
        value=SecretValue.of_text(body.value, body.value_encoding),
        name=body.name,
        kind=body.kind,
        description=body.description,
        labels=body.labels,
        attributes={name: value for name, value in attributes.items() if value is not None},
        expires_at=_end_of(body.expire_time),
        providers=request.app.state.clients.providers,
        links=Links.of(request),
    )
    return await add_version(
        request, context, idempotency_key, body.model_dump(mode="json"), addition
    )


@router.get("", response_model=SecretList, responses=documented(403))
async def list_secrets(
    request: Request,
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    kind: str | None = None,
) -> Response:
    """List the workspace's secrets, newest first, also those that can be restored."""
    scope.require_scope(SecretScope.SECRETS_READ, "secret.list", resource_type="secret")
    conditions = [is_shown()]
    if kind is not None:
        # There is no secret of a kind that is not known.
        known = kind in set(SecretKind)
        conditions.append(col(SecretRow.kind) == SecretKind(kind) if known else false())
    before = position_of(cursor, Prefix.SECRET)
    page = await page_of(scope.session, SecretRow, *conditions, before=before, limit=limit)
    counts = await count_versions(scope.session, [row.id for row in page.rows])

    def render(row: SecretRow) -> SecretBody:
        return secret_body(row, counts.get(row.id, VersionCounts()), links=Links.of(request))

    return JSONResponse(page_body(page, render))


@router.get("/{id}", response_model=SecretBody, responses=documented(403, 404))
async def get_secret(request: Request, scope: Scope, secret_id: Identifier) -> Response:
    """Get a secret, also one that can be restored."""
    scope.require_scope(
        SecretScope.SECRETS_READ, "secret.get", resource_type="secret", resource_id=secret_id
    )
    secret = await find_secret(scope.session, check_id(Prefix.SECRET, secret_id))
    if secret is None:
        raise not_found(Prefix.SECRET)
    return JSONResponse(await _body_of(request, scope, secret))


@router.patch("/{id}", response_model=SecretBody, responses=documented(403, 404, 409))
async def change_secret(
    request: Request,
    scope: Scope,
    secret_id: Identifier,
    body: ChangeSecretRequest,
    if_match: IfMatch,
) -> Response:
    """Change what is known about a secret, or which version `current` gives."""
    _require_write(scope, "secret.update", secret_id)
    changes: dict[str, Any] = body.model_dump(include=body.model_fields_set)
    if "version_aliases" in changes:
        changes["aliases"] = changes.pop("version_aliases")
    if "expire_time" in changes:
        changes["expires_at"] = _end_of(changes.pop("expire_time"))
    secret = await secret_changes.change(scope, secret_id, if_match, changes)
    return JSONResponse(await _body_of(request, scope, secret))


@router.delete("/{id}", status_code=204, responses=documented(403, 404, 409))
async def delete_secret(
    scope: Scope,
    secret_id: Identifier,
    if_match: IfMatch,
    force: bool | None = None,  # noqa: FBT001 - a query parameter
) -> Response:
    """Delete a secret, which can be restored for 30 days; with force it is gone for good."""
    _require_write(scope, "secret.delete", secret_id)
    purged = await secret_changes.delete(scope, secret_id, if_match, force=bool(force))
    if purged is not None:
        _purge_after_commit(scope, purged)
    return Response(status_code=204)


@router.post("/{id}:undelete", response_model=SecretBody, responses=documented(403, 404, 409))
async def undelete_secret(
    request: Request,
    scope: Scope,
    secret_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Restore a deleted secret with all its versions."""
    _require_write(scope, "secret.undelete", secret_id)

    async def effect() -> SecretBody:
        secret = await secret_changes.undelete(scope, secret_id, if_match)
        return await _body_of(request, scope, secret)

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


@router.post("/{id}:requestPurge", response_model=SecretBody, responses=documented(403, 404))
async def request_purge(
    request: Request, scope: Scope, secret_id: Identifier, body: ConfirmPurgeRequest
) -> Response:
    """Ask that a deleted secret is purged now; another person has to approve it."""
    _require_write(scope, "secret.request_purge", secret_id)
    secret = await secret_changes.request_purge(scope, secret_id, body.confirm_name)
    return JSONResponse(await _body_of(request, scope, secret))


@router.post("/{id}:approvePurge", status_code=204, responses=documented(403, 404, 409))
async def approve_purge(scope: Scope, secret_id: Identifier, body: ConfirmPurgeRequest) -> Response:
    """Approve, as another owner, that a deleted secret is purged now."""
    _require_write(scope, "secret.approve_purge", secret_id)
    scope.require(Role.OWNER, "secret.approve_purge", resource_type="secret", resource_id=secret_id)
    purged = await secret_changes.approve_purge(scope, secret_id, body.confirm_name)
    _purge_after_commit(scope, purged)
    return Response(status_code=204)


def _require_write(scope: RequestScope, action: str, secret_id: str) -> None:
    scope.require_scope(
        SecretScope.SECRETS_WRITE, action, resource_type="secret", resource_id=secret_id
    )


def _purge_after_commit(scope: RequestScope, secret_id: str) -> None:
    scope.after_commit.append(partial(_start_purge, scope, scope.caller.workspace_id, secret_id))


async def _start_purge(scope: RequestScope, workspace_id: str, secret_id: str) -> None:
    await start_purge(await scope.clients.temporal.client(), workspace_id, secret_id)


async def _body_of(request: Request, scope: RequestScope, secret: SecretRow) -> SecretBody:
    counts = await secret_changes.counts_of(scope, secret)
    return secret_body(secret, counts, links=Links.of(request))


def _end_of(expire_time: int | None) -> datetime | None:
    if expire_time is None:
        return None
    end = datetime.fromtimestamp(expire_time, UTC)
    if end <= datetime.now(UTC):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "This lies in the past; leave it out for a secret without an end.",
            path=("body", "expire_time"),
            status=400,
        )
    return end
