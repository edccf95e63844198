"""Secrets and their versions as they are shown: never a value."""

from typing import Any, Final, NotRequired

from typing_extensions import TypedDict

from api.links import Links
from domain.secret import SecretKind, SecretState, VersionState
from infra.database.queries.secret import VersionCounts
from infra.database.tables import SecretRow, SecretVersionRow
from infra.database.tables.columns import unix

# Until a value is proven to be gone its version is only known to be unreadable.
_SHOWN_STATES: Final = {VersionState.DESTROYING: VersionState.DISABLED}


class SecretValidationBody(TypedDict):
    """Whether the provider accepts the value of `current`; `validated_at` is 0 before it is asked.

    `state` is `unspecified`, `valid` or `invalid`.
    """

    state: str
    validated_at: int
    error: NotRequired[str]


class SecretBody(TypedDict):
    """The contract's Secret; `attributes` and the two of a purge are ours."""

    id: str
    html_url: str
    workspace_id: str
    name: str
    kind: SecretKind
    description: NotRequired[str]
    labels: dict[str, str]
    attributes: dict[str, str]
    state: SecretState
    validation: SecretValidationBody
    mime_type: NotRequired[str]
    version_aliases: dict[str, int]
    version_count: int
    enabled_version_count: int
    created_at: int
    updated_at: int
    deleted_at: NotRequired[int]
    purge_at: NotRequired[int]
    purge_requested_by: NotRequired[str]
    purge_requested_at: NotRequired[int]
    expire_time: NotRequired[int]
    etag: str


class SecretVersionBody(TypedDict):
    """The contract's SecretVersion; `last_used_at` is ours, and exact to the minute."""

    id: str
    secret_id: str
    version_number: int
    state: VersionState
    comment: NotRequired[str]
    created_at: int
    destroyed_at: NotRequired[int]
    last_used_at: NotRequired[int]
    etag: str


def secret_body(row: SecretRow, counts: VersionCounts, *, links: Links) -> SecretBody:
    """Render a secret."""
    body = SecretBody(
        id=row.id,
        html_url=links.secret(row.id),
        workspace_id=row.workspace_id,
        name=row.name,
        kind=row.kind,
        labels=row.labels,
        attributes=row.attributes,
        state=row.state,
        validation=_validation_body(row.validation or {}),
        version_aliases=row.aliases,
        version_count=counts.all,
        enabled_version_count=counts.enabled,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
    )
    if row.description is not None:
        body["description"] = row.description
    if row.mime_type is not None:
        body["mime_type"] = row.mime_type
    if row.deleted_at is not None:
        body["deleted_at"] = unix(row.deleted_at)
    if row.purge_at is not None:
        body["purge_at"] = unix(row.purge_at)
    if row.purge_requested_by is not None:
        body["purge_requested_by"] = row.purge_requested_by
    if row.purge_requested_at is not None:
        body["purge_requested_at"] = unix(row.purge_requested_at)
    if row.expires_at is not None:
        body["expire_time"] = unix(row.expires_at)
    return body


def version_body(row: SecretVersionRow) -> SecretVersionBody:
    """Render a version."""
    body = SecretVersionBody(
        id=row.id,
        secret_id=row.secret_id,
        version_number=row.number,
        state=_SHOWN_STATES.get(row.state, row.state),
        created_at=unix(row.created_at),
        etag=str(row.version),
    )
    if row.comment is not None:
        body["comment"] = row.comment
    if row.destroyed_at is not None:
        body["destroyed_at"] = unix(row.destroyed_at)
    if row.last_used_at is not None:
        body["last_used_at"] = unix(row.last_used_at)
    return body


def _validation_body(document: dict[str, Any]) -> SecretValidationBody:
    # What nobody has validated is `unspecified`; a value of a kind that no provider knows stays so.
    body = SecretValidationBody(
        state=document.get("state", "unspecified"), validated_at=document.get("validated_at", 0)
    )
    if "error" in document:
        body["error"] = document["error"]
    return body
