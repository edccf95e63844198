"""Plaintext: the only routes that answer with a value of a secret.

What is read is in the audit log before it is read, and so is what is refused.
"""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import asyncio
import time
from functools import partial
from typing import Annotated, NotRequired

from fastapi import APIRouter, Path, Request
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.clients import Clients
from api.errors import documented
from api.fields import Body, Identifier, check_id
from api.rate_limits import AccessLimits
from api.routes.secret import Value
from api.scope import Attempt, Context, RequestScope, open_scope
from api.secret_additions import bounded_probe
from api.secret_space import in_secret_space
from domain.caller import Scope as SecretScope
from domain.cloud import CREDENTIAL_KINDS, Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretValue, ValueEncoding, VersionPlace
from infra.openbao.values import ValueStore
from infra.providers.validation import ValidationState
from infra.secret_store.access import Access, Accessible, record_access

router = APIRouter(prefix="/secrets", tags=["secrets"])

_ACCESS = "secret_version.access"
_UNWRAP = "secret_version.unwrap"

# A proxy or a browser must not keep what it passes on.
_NO_STORE = {"cache-control": "no-store"}

Selector = Annotated[
    str,
    Path(
        alias="vid",
        max_length=128,
        description="The id of a version, `latest`, or an alias such as `current`.",
    ),
]


class AccessRequest(Body):
    """How the value is to be given out; without it, in the answer."""

    wrap_ttl_seconds: Annotated[int, Field(ge=1, le=300)] | None = None


class UnwrapRequest(Body):
    """What a wrapped access answered with."""

    token: Annotated[
        str,
        StringConstraints(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$"),
        Field(json_schema_extra={"writeOnly": True}),
    ]


class ValidateProviderTokenRequest(Body):
    """A credential to be tried at its provider, and not stored.

    `hcloud`: a token. Ours: `aws`, JSON with `access_key_id` and `secret_access_key`; `gcp`, the
    key file (JSON) of a service account.
    """

    provider: Annotated[Provider, Field(strict=False)]
    value: Value


class SecretPlaintext(TypedDict):
    """The contract's SecretPlaintext; `value_encoding` and `version_number` are ours.

    When it was asked for in wrapped form, there are the two fields of the wrapping instead.
    """

    value: NotRequired[str]
    value_encoding: NotRequired[str]
    version_number: NotRequired[int]
    wrapping_token: NotRequired[str]
    wrapping_expires_at: NotRequired[int]


class ValidateProviderTokenResult(TypedDict):
    """Whether the provider accepts the token."""

    valid: bool
    error: NotRequired[str]


@router.post(
    "/{id}/versions/{vid}:access",
    response_model=SecretPlaintext,
    responses=documented(403, 404, 409, 410),
)
async def access_secret_version(
    request: Request,
    context: Context,
    secret_id: Identifier,
    selector: Selector,
    body: AccessRequest | None = None,
) -> Response:
    """Read the value of a version, or have it wrapped in a token that yields it once."""
    audit_id = new_id(Prefix.AUDIT_EVENT)
    wrap_ttl = None if body is None else body.wrap_ttl_seconds
    clients: Clients = request.app.state.clients
    await clients.serving.ask_ahead()
    attempt = Attempt(_ACCESS, "secret", secret_id)
    async with open_scope(request, context, attempt=attempt) as scope:
        _require_access(scope, _ACCESS, secret_id)
        limits: AccessLimits = request.app.state.access_limits
        access = Access(
            secret_id=check_id(Prefix.SECRET, secret_id),
            selector=selector,
            action=_ACCESS,
            audit_id=audit_id,
            wrapped=wrap_ttl is not None,
        )
        found = await _admit(scope, limits, access)
    # By now the attempt is committed; no transaction is held while the value is fetched.
    values = scope.clients.openbao.values
    if wrap_ttl is not None:
        return await _wrapped(values, found, audit_id, wrap_ttl)
    value = await asyncio.to_thread(values.read, found.place, audit_id)
    return _plaintext(value, found.number)


@router.post("/unwrap", response_model=SecretPlaintext, responses=documented(403, 404, 409, 410))
async def unwrap_secret_value(request: Request, context: Context, body: UnwrapRequest) -> Response:
    """Read the value that a wrapping token stands for; the token is used up.

    A token that was used before answers 404: somebody else has read the value.
    """
    audit_id = new_id(Prefix.AUDIT_EVENT)
    attempt = Attempt(_UNWRAP, "secret")
    async with open_scope(request, context, attempt=attempt) as scope:
        _require_access(scope, _UNWRAP)
    place = await _place_in(scope, body.token)
    await scope.clients.serving.ask_ahead()
    async with open_scope(request, context, attempt=attempt) as scope:
        found = await _admit_wrapped(scope, request.app.state.access_limits, place, audit_id)
    values = scope.clients.openbao.values
    value = await asyncio.to_thread(values.unwrap, scope.caller.workspace_id, body.token, audit_id)
    return _plaintext(value, found.number)


@router.post(
    "/validate_token", response_model=ValidateProviderTokenResult, responses=documented(403)
)
async def validate_provider_token(
    request: Request, context: Context, body: ValidateProviderTokenRequest
) -> Response:
    """Ask a provider whether it accepts a credential; nothing is stored."""
    value = SecretValue.of_text(body.value)
    async with open_scope(request, context) as scope:
        scope.require_scope(
            SecretScope.SECRETS_WRITE, "secret.validate_token", resource_type="workspace"
        )
        scope.audit("secret.validate_token", "workspace", scope.caller.workspace_id)
    providers = scope.clients.providers
    found = await bounded_probe(providers.validate(CREDENTIAL_KINDS[body.provider], value, {}))
    result = ValidateProviderTokenResult(valid=found.state is ValidationState.VALID)
    if found.error is not None:
        result["error"] = found.error
    return JSONResponse(result, headers=_NO_STORE)


def _require_access(scope: RequestScope, action: str, secret_id: str = "") -> None:
    scope.require_scope(
        SecretScope.SECRETS_ACCESS, action, resource_type="secret", resource_id=secret_id
    )
    # Whatever refuses it from here on, it was an attempt to read a value.
    scope.deny(action, "secret", secret_id)


async def _admit(scope: RequestScope, limits: AccessLimits, access: Access) -> Accessible:
    """Find the version, write the read's audit line, and count it."""
    found = await record_access(scope.session, scope.clients.serving, scope.caller, access)
    # Refused now, what was written is rolled back, and the refusal is written instead.
    limits.take(access.secret_id, found.accesses_per_minute)
    return found


async def _place_in(scope: RequestScope, token: str) -> VersionPlace | BulkheadError:
    workspace_id = scope.caller.workspace_id
    look = partial(scope.clients.openbao.values.place_of_wrapped, workspace_id, token)
    try:
        return await in_secret_space(scope.clients, workspace_id, look)
    except BulkheadError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return error


async def _admit_wrapped(
    scope: RequestScope,
    limits: AccessLimits,
    place: VersionPlace | BulkheadError,
    audit_id: str,
) -> Accessible:
    if isinstance(place, BulkheadError):
        _require_access(scope, _UNWRAP)
        raise place
    # OpenBao unwraps a token of any workspace: only what is found here is this one's.
    _require_access(scope, _UNWRAP, place.secret_id)
    access = Access(
        secret_id=place.secret_id,
        selector=place.version_id,
        action=_UNWRAP,
        audit_id=audit_id,
    )
    return await _admit(scope, limits, access)


async def _wrapped(
    values: ValueStore, found: Accessible, audit_id: str, ttl_seconds: int
) -> Response:
    expires_at = int(time.time()) + ttl_seconds
    token = await asyncio.to_thread(values.wrap, found.place, audit_id, ttl_seconds)
    return JSONResponse(
        SecretPlaintext(
            wrapping_token=token,
            wrapping_expires_at=expires_at,
            version_number=found.number,
        ),
        headers=_NO_STORE,
    )


def _plaintext(value: SecretValue, number: int) -> Response:
    body = SecretPlaintext(value=value.text(), version_number=number)
    if value.encoding is ValueEncoding.BASE64:
        body["value_encoding"] = value.encoding
    return JSONResponse(body, headers=_NO_STORE)
