"""Who uses a secret, which version, and who has taken a new one over.

What the platform makes (compute configs, registry connections, installs, rotations) registers
itself; these routes are for consumers outside.
"""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from functools import partial
from typing import Annotated, Final, NotRequired

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import secret_changes
from api.errors import documented
from api.fields import Body, Cursor, Identifier, Limit, check_id, not_found
from api.pages import DEFAULT_LIMIT, texts_of, texts_page
from api.scope import RequestScope, Scope
from domain.caller import Scope as SecretScope
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.install import INSTALL_CONSUMER
from domain.package import REGISTRY_CONNECTION_CONSUMER
from domain.quota import QuotaMetric
from domain.secret import ROTATION_CONSUMER, SecretState
from infra.database.queries.quota import read_quota, refuse_beyond
from infra.database.queries.secret import find_reference, find_secret, references_of, would_miss
from infra.database.records.reference import (
    Reference,
    acknowledge,
    register_reference,
    remove_reference,
)
from infra.database.records.secret import current_number
from infra.database.tables import SecretReferenceRow, SecretRow
from infra.database.tables.columns import unix
from infra.temporal.start import wake_rotation

router = APIRouter(prefix="/secrets", tags=["secrets"])

_ADDRESS = "/{id}/references/{consumer_type}/{consumer_id}"

_TYPE: Final = r"[a-z][a-z0-9_]*"
_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"

ConsumerType = Annotated[str, Path(max_length=63, pattern=f"^{_TYPE}$")]
ConsumerId = Annotated[str, Path(max_length=128, pattern=f"^{_ID}$")]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
MissedVersion = Annotated[
    int | None,
    Query(
        ge=1,
        le=2**31 - 1,
        description="Only the consumers that would miss the version of this number.",
    ),
]

# What the platform registers by itself.
_OWN: Final = {
    COMPUTE_CONFIG_CONSUMER: "Compute configs",
    INSTALL_CONSUMER: "Installs",
    REGISTRY_CONNECTION_CONSUMER: "Registry connections",
    ROTATION_CONSUMER: "Rotations",
}


class PutReferenceRequest(Body):
    """How the consumer uses the secret; without a number it follows `current`."""

    version_number: Number | None = None
    acknowledges: bool = False


class AcknowledgeRequest(Body):
    """The version that the consumer works with by now."""

    version_number: Number


class SecretReferenceBody(TypedDict):
    """One consumer. Without `version_number` it follows `current`."""

    secret_id: str
    consumer_type: str
    consumer_id: str
    version_number: NotRequired[int]
    acknowledges: bool
    last_used_number: NotRequired[int]
    last_used_at: NotRequired[int]
    acknowledged_number: NotRequired[int]
    acknowledged_at: NotRequired[int]
    created_at: int


class SecretReferenceList(TypedDict):
    """One page."""

    data: list[SecretReferenceBody]
    has_more: bool
    next_cursor: str | None


@router.get("/{id}/references", response_model=SecretReferenceList, responses=documented(403, 404))
async def list_secret_references(
    scope: Scope,
    secret_id: Identifier,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    version_number: MissedVersion = None,
) -> Response:
    """List who uses a secret by type and id, with the version that each used last."""
    scope.require_scope(
        SecretScope.SECRETS_READ,
        "secret_reference.list",
        resource_type="secret",
        resource_id=secret_id,
    )
    secret = await find_secret(scope.session, check_id(Prefix.SECRET, secret_id))
    if secret is None or secret.state is not SecretState.ACTIVE:
        raise not_found(Prefix.SECRET)
    after = None if cursor is None else texts_of(cursor, _TYPE, _ID)
    missed = () if version_number is None else (would_miss(version_number, current_number(secret)),)
    rows = await references_of(
        scope.session,
        secret.id,
        *missed,
        after=None if after is None else (after[0], after[1]),
        limit=limit + 1,
    )
    page = texts_page(rows, limit, reference_body, lambda row: (row.consumer_type, row.consumer_id))
    return JSONResponse(page)


@router.put(_ADDRESS, response_model=SecretReferenceBody, responses=documented(403, 404, 409))
async def put_secret_reference(
    scope: Scope,
    secret_id: Identifier,
    consumer_type: ConsumerType,
    consumer_id: ConsumerId,
    body: PutReferenceRequest,
) -> Response:
    """Say that something uses the secret, and how."""
    _require(scope, SecretScope.SECRETS_WRITE, "secret_reference.put", secret_id)
    _refuse_own(consumer_type, consumer_id)
    secret = await secret_changes.hold(scope, secret_id)
    if await find_reference(scope.session, secret.id, consumer_type, consumer_id) is None:
        # The secret's lock makes the count exact.
        quota = await read_quota(scope.session, QuotaMetric.SECRET_REFERENCES, secret.id)
        refuse_beyond(quota)
    row = await register_reference(
        scope.session,
        Reference(
            workspace_id=secret.workspace_id,
            secret_id=secret.id,
            consumer_type=consumer_type,
            consumer_id=consumer_id,
            version_number=body.version_number,
            acknowledges=body.acknowledges,
        ),
    )
    _audit(scope, "secret_reference.put", row)
    return JSONResponse(reference_body(row))


@router.delete(_ADDRESS, status_code=204, responses=documented(403, 404, 409))
async def delete_secret_reference(
    scope: Scope,
    secret_id: Identifier,
    consumer_type: ConsumerType,
    consumer_id: ConsumerId,
) -> Response:
    """Say that something does not use the secret any more."""
    _require(scope, SecretScope.SECRETS_WRITE, "secret_reference.delete", secret_id)
    _refuse_own(consumer_type, consumer_id)
    secret = await secret_changes.hold(scope, secret_id)
    if not await remove_reference(scope.session, secret.id, consumer_type, consumer_id):
        raise _no_such_reference()
    consumer = f"{consumer_type}/{consumer_id}"
    scope.audit("secret_reference.delete", "secret", secret.id, consumer=consumer)
    _wake_rotation_of(scope, secret)
    return Response(status_code=204)


@router.post(
    f"{_ADDRESS}:acknowledge",
    response_model=SecretReferenceBody,
    responses=documented(403, 404, 409),
)
async def acknowledge_secret_version(
    scope: Scope,
    secret_id: Identifier,
    consumer_type: ConsumerType,
    consumer_id: ConsumerId,
    body: AcknowledgeRequest,
) -> Response:
    """Say that a consumer works with a version by now; who reads values says so."""
    _require(scope, SecretScope.SECRETS_ACCESS, "secret_reference.acknowledge", secret_id)
    _refuse_own(consumer_type, consumer_id)
    secret = await secret_changes.hold(scope, secret_id)
    row = await acknowledge(
        scope.session, secret.id, consumer_type, consumer_id, body.version_number
    )
    if row is None:
        raise _no_such_reference()
    _audit(scope, "secret_reference.acknowledge", row)
    _wake_rotation_of(scope, secret)
    return JSONResponse(reference_body(row))


def _wake_rotation_of(scope: RequestScope, secret: SecretRow) -> None:
    """Have the rotation that may wait for this consumer look again."""
    if secret.active_operation_id is not None:
        scope.after_commit.append(partial(_wake, scope, secret.id, secret.active_operation_id))


async def _wake(scope: RequestScope, secret_id: str, operation_id: str) -> None:
    await wake_rotation(await scope.clients.temporal.client(), secret_id, operation_id)


def reference_body(row: SecretReferenceRow) -> SecretReferenceBody:
    """Render a consumer."""
    body = SecretReferenceBody(
        secret_id=row.secret_id,
        consumer_type=row.consumer_type,
        consumer_id=row.consumer_id,
        acknowledges=row.acknowledges,
        created_at=unix(row.created_at),
    )
    if row.version_number is not None:
        body["version_number"] = row.version_number
    if row.last_used_number is not None:
        body["last_used_number"] = row.last_used_number
    if row.last_used_at is not None:
        body["last_used_at"] = unix(row.last_used_at)
    if row.acknowledged_number is not None:
        body["acknowledged_number"] = row.acknowledged_number
    if row.acknowledged_at is not None:
        body["acknowledged_at"] = unix(row.acknowledged_at)
    return body


def _require(scope: RequestScope, needed: SecretScope, action: str, secret_id: str) -> None:
    scope.require_scope(needed, action, resource_type="secret", resource_id=secret_id)


def _refuse_own(consumer_type: str, consumer_id: str) -> None:
    # Other tools may call what they install by any other name.
    own = consumer_type != INSTALL_CONSUMER or is_id(Prefix.INSTALL, consumer_id)
    if consumer_type in _OWN and own:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"{_OWN[consumer_type]} say themselves which secret they use, and which version; "
            "change those instead.",
            path=("path", "consumer_type"),
        )


def _audit(scope: RequestScope, action: str, row: SecretReferenceRow) -> None:
    scope.audit(
        action,
        "secret",
        row.secret_id,
        consumer=f"{row.consumer_type}/{row.consumer_id}",
        version_number=row.acknowledged_number if "ack" in action else row.version_number,
    )


def _no_such_reference() -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND,
        "Nothing is known of this consumer of the secret.",
        path=("path", "consumer_id"),
    )
