"""How a secret rotates, and a rotation now."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import secret_changes
from api.errors import documented
from api.fields import Body, IdempotencyKey, Identifier, check_etag, check_id, not_found
from api.idempotency import answer_once
from api.links import Links
from api.routes.operation import OperationBody, operation_body
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.operation import OperationType
from domain.quota import QuotaMetric
from domain.rotation import next_turn
from domain.secret import (
    GRANTING_ROTATORS,
    ROTATION_CONSUMER,
    SENDING_ROTATORS,
    Retirement,
    RotatorKind,
    SecretKind,
    SecretState,
)
from infra.database.queries.quota import hold_quotas, read_quota, refuse_beyond
from infra.database.queries.secret import find_rotation, find_secret
from infra.database.records.operation import secret_operation_of
from infra.database.records.reference import (
    Reference,
    register_reference,
    remove_reference,
)
from infra.database.records.rotation_plan import plan_rotation, schedule_of
from infra.database.tables import OperationRow, SecretRotationRow, SecretRow
from infra.database.tables.columns import unix, unix_or_none
from infra.rotators.registry import check_settings, credentials_in
from infra.temporal.start import start_operation

router = APIRouter(prefix="/secrets", tags=["secrets"])

_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
_YEAR: Final = 366 * _DAY
_MINUTES_OF_A_DAY: Final = 24 * 60

OptionalIfMatch = Annotated[
    str | None,
    Header(
        alias="if-match",
        min_length=1,
        max_length=256,
        description="The `etag` that the change is based on; another one there is refused (409).",
    ),
]


class WindowRequest(Body):
    """When in a UTC day rotations may start; it may reach over midnight."""

    start_minute: Annotated[int, Field(ge=0, lt=_MINUTES_OF_A_DAY)]
    minutes: Annotated[int, Field(ge=1, le=_MINUTES_OF_A_DAY)]


class PutRotationRequest(Body):
    """How the secret shall rotate; it replaces what was there."""

    rotator: Annotated[RotatorKind, Field(strict=False)]
    settings: dict[str, Any] = Field(default_factory=dict)
    interval_seconds: Annotated[int, Field(ge=_HOUR, le=_YEAR)]
    jitter_seconds: Annotated[int, Field(ge=0, le=_DAY)] = 0
    window: WindowRequest | None = None
    catch_up_seconds: Annotated[int, Field(ge=0, le=_YEAR)] | None = None
    grace_seconds: Annotated[int, Field(ge=0, le=30 * _DAY)] = _DAY
    retirement: Annotated[Retirement, Field(strict=False)] = Retirement.KEEP
    enabled: bool = True


class WindowBody(TypedDict):
    """A window, as it was given."""

    start_minute: int
    minutes: int


class SecretRotationBody(TypedDict):
    """How a secret rotates. `settings` are the rotator's, with their defaults; none is secret."""

    secret_id: str
    rotator: RotatorKind
    settings: dict[str, Any]
    interval_seconds: int
    jitter_seconds: int
    window: WindowBody | None
    catch_up_seconds: int
    grace_seconds: int
    retirement: Retirement
    enabled: bool
    next_rotation_at: int
    last_rotated_at: int | None
    last_operation_id: str | None
    created_at: int
    updated_at: int
    etag: str


@router.get("/{id}/rotation", response_model=SecretRotationBody, responses=documented(403, 404))
async def get_secret_rotation(scope: Scope, secret_id: Identifier) -> Response:
    """Get how a secret rotates."""
    _require(scope, SecretScope.SECRETS_READ, "secret_rotation.get", secret_id)
    secret = await find_secret(scope.session, check_id(Prefix.SECRET, secret_id))
    if secret is None or secret.state is not SecretState.ACTIVE:
        raise not_found(Prefix.SECRET)
    return JSONResponse(rotation_body(await _find(scope, secret)))


@router.put(
    "/{id}/rotation", response_model=SecretRotationBody, responses=documented(403, 404, 409)
)
async def put_secret_rotation(
    scope: Scope,
    secret_id: Identifier,
    body: PutRotationRequest,
    if_match: OptionalIfMatch = None,
) -> Response:
    """Set how a secret rotates; a rotation that runs goes on as it began."""
    _require(scope, SecretScope.SECRETS_WRITE, "secret_rotation.put", secret_id)
    if body.rotator in SENDING_ROTATORS:
        # Whoever chooses where values are sent can read them there.
        _require(scope, SecretScope.SECRETS_ACCESS, "secret_rotation.put", secret_id)
    if body.rotator in GRANTING_ROTATORS:
        scope.require(
            Role.OWNER, "secret_rotation.put", resource_type="secret", resource_id=secret_id
        )
    # In one order, for two rotations may each use the other's secret.
    for each in sorted({check_id(Prefix.SECRET, secret_id), *credentials_in(body.settings)}):
        await find_secret(scope.session, each, lock=True)
    secret = await secret_changes.hold(scope, secret_id)
    row = await find_rotation(scope.session, secret.id)
    if row is None and if_match is not None:
        raise _no_rotation()
    if row is not None and if_match is not None:
        check_etag(if_match, row.version)
    columns = _columns_of(secret, body)
    await _register_credentials(
        scope,
        secret,
        before=frozenset() if row is None else credentials_in(row.settings),
        after=credentials_in(columns["settings"]),
    )
    if row is None:
        row = SecretRotationRow(
            workspace_id=secret.workspace_id,
            secret_id=secret.id,
            created_at=datetime.now(UTC),
            **columns,
        )
        row.next_rotation_at = _next_turn(row)
    else:
        for name, value in columns.items():
            setattr(row, name, value)
        row.next_rotation_at = _next_turn(row)
        row.version += 1
    row.updated_at = datetime.now(UTC)
    scope.session.add(row)
    scope.audit("secret_rotation.put", "secret", secret.id, rotator=body.rotator)
    return JSONResponse(rotation_body(row))


@router.delete("/{id}/rotation", status_code=204, responses=documented(403, 404, 409))
async def delete_secret_rotation(
    scope: Scope, secret_id: Identifier, if_match: OptionalIfMatch = None
) -> Response:
    """Let a secret rotate no more; a rotation that runs goes on."""
    _require(scope, SecretScope.SECRETS_WRITE, "secret_rotation.delete", secret_id)
    secret = await secret_changes.hold(scope, secret_id)
    row = await _find(scope, secret)
    if if_match is not None:
        check_etag(if_match, row.version)
    await _register_credentials(
        scope, secret, before=credentials_in(row.settings), after=frozenset()
    )
    await scope.session.delete(row)
    scope.audit("secret_rotation.delete", "secret", secret.id)
    return Response(status_code=204)


@router.post(
    "/{id}:rotate",
    status_code=202,
    response_model=OperationBody,
    responses=documented(403, 404, 409),
)
async def rotate_secret(
    request: Request,
    scope: Scope,
    secret_id: Identifier,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Rotate a secret now, whatever its schedule says."""
    _require(scope, SecretScope.SECRETS_WRITE, OperationType.SECRET_ROTATE, secret_id)

    async def effect() -> OperationBody:
        return operation_body(await _rotate(scope, secret_id), links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, {}, 202, effect)


def rotation_body(row: SecretRotationRow) -> SecretRotationBody:
    """Render how a secret rotates."""
    window = None
    if row.window_start_minute is not None and row.window_minutes is not None:
        window = WindowBody(start_minute=row.window_start_minute, minutes=row.window_minutes)
    return SecretRotationBody(
        secret_id=row.secret_id,
        rotator=row.rotator,
        settings=row.settings,
        interval_seconds=row.interval_seconds,
        jitter_seconds=row.jitter_seconds,
        window=window,
        catch_up_seconds=row.catch_up_seconds,
        grace_seconds=row.grace_seconds,
        retirement=row.retirement,
        enabled=row.enabled,
        next_rotation_at=unix(row.next_rotation_at),
        last_rotated_at=unix_or_none(row.last_rotated_at),
        last_operation_id=row.last_operation_id,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
    )


async def _rotate(scope: RequestScope, secret_id: str) -> OperationRow:
    # Before the secret's lock, as whoever registers a new consumer takes the two.
    await hold_quotas(scope.session, scope.caller.workspace_id)
    secret = await secret_changes.hold(scope, secret_id)
    operation = plan_rotation(scope.rows, secret, await _find(scope, secret), scope.caller)
    refuse_beyond(await read_quota(scope.session, QuotaMetric.SECRET_ROTATIONS))
    refuse_beyond(await read_quota(scope.session, QuotaMetric.SECRET_VERSIONS, secret.id))
    scope.audit(operation.type, "secret", secret.id, operation_id=operation.id)
    await scope.rows.write(scope.session)
    workflow_input = secret_operation_of(operation)

    async def start() -> None:
        client = await scope.clients.temporal.client()
        await start_operation(client, OperationType.SECRET_ROTATE, workflow_input)

    scope.after_commit.append(start)
    return operation


async def _register_credentials(
    scope: RequestScope, secret: SecretRow, *, before: frozenset[str], after: frozenset[str]
) -> None:
    """Record that the rotation uses these secrets, so that nobody ends them unawares."""
    for credential in sorted(before - after):
        await remove_reference(scope.session, credential, ROTATION_CONSUMER, secret.id)
    for credential in sorted(after - before):
        found = await find_secret(scope.session, credential)
        if found is None or found.state is not SecretState.ACTIVE:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "A secret that the settings name does not exist in this workspace.",
                path=("body", "settings"),
                status=400,
            )
        await register_reference(
            scope.session,
            Reference(
                workspace_id=secret.workspace_id,
                secret_id=credential,
                consumer_type=ROTATION_CONSUMER,
                consumer_id=secret.id,
            ),
        )


def _columns_of(secret: SecretRow, body: PutRotationRequest) -> dict[str, Any]:
    window = body.window
    if body.rotator is RotatorKind.WEBHOOK_SIGNING_KEY and (
        secret.kind is not SecretKind.WEBHOOK_SIGNING
    ):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "This rotator makes keys that sign webhooks; the secret is of another kind.",
            path=("body", "rotator"),
            status=400,
        )
    settings = check_settings(body.rotator, secret.id, body.settings)
    _refuse_gap(settings, body)
    return {
        "rotator": body.rotator,
        "settings": settings,
        "interval_seconds": body.interval_seconds,
        "jitter_seconds": body.jitter_seconds,
        "window_start_minute": None if window is None else window.start_minute,
        "window_minutes": None if window is None else window.minutes,
        # As late as the next turn would be, so that an outage costs one turn and not several.
        "catch_up_seconds": (
            body.interval_seconds if body.catch_up_seconds is None else body.catch_up_seconds
        ),
        "grace_seconds": body.grace_seconds,
        "retirement": body.retirement,
        "enabled": body.enabled,
    }


def _refuse_gap(settings: dict[str, Any], body: PutRotationRequest) -> None:
    """Refuse values that end before the next turn replaces them."""
    longest = body.interval_seconds + body.jitter_seconds
    valid = settings.get("expiration_seconds")
    if valid is not None and valid <= longest:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"A value is valid for {valid} seconds, and the next one comes up to {longest} seconds "
            "(`interval_seconds` and `jitter_seconds`) after it: nothing would be accepted in "
            "between. Raise `expiration_seconds`, or rotate more often.",
            path=("body", "settings", "expiration_seconds"),
            status=400,
        )


def _next_turn(row: SecretRotationRow) -> datetime:
    return next_turn(schedule_of(row), row.secret_id, datetime.now(UTC))


async def _find(scope: RequestScope, secret: SecretRow) -> SecretRotationRow:
    row = await find_rotation(scope.session, secret.id)
    if row is None:
        raise _no_rotation()
    return row


def _require(scope: RequestScope, needed: SecretScope, action: str, secret_id: str) -> None:
    scope.require_scope(needed, action, resource_type="secret", resource_id=secret_id)


def _no_rotation() -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND,
        "The secret does not rotate; say how first (`bulkhead secrets rotation set`).",
        path=("path", "id"),
    )
