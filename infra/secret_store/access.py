"""A read of a value as the API lets it pass: found and audited in one statement.

Reads are the most frequent thing that is asked of the store, and each statement of a transaction
costs as much as half of OpenBao's answer.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Text,
    bindparam,
    column,
    func,
    insert,
    literal,
    select,
    table,
    true,
)
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller
from domain.secret import VersionPlace, VersionState
from infra.database.queries.secret import (
    VersionSelection,
    check_readable,
    no_readable_secret,
    readable_versions,
)
from infra.database.records.secret import record_use
from infra.database.statements import CompiledQuery
from infra.database.tables import AuditEventRow, SecretRow, SecretVersionRow, WorkspaceRow
from infra.secret_store.serving import ServingGate, StoreState

_STATE = table(
    "secret_store_state",
    *(column(name) for name in ("serving", "generation", "next_generation", "restore_id")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """One attempt to read a value.

    Attributes:
        secret_id: of which secret.
        selector: an id of a version, `latest`, or an alias.
        action: what the audit log calls it.
        audit_id: the id of its audit line, which the request to OpenBao carries too.
        wrapped: a token that yields the value once is given out, and not the value.
    """

    secret_id: str
    selector: str
    action: str
    audit_id: str
    wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Accessible:
    """A version whose value may be read once the transaction is committed.

    Attributes:
        place: where its value is.
        number: of the version.
        accesses_per_minute: how often the workspace lets the values of one secret be read.
    """

    place: VersionPlace
    number: int
    accesses_per_minute: int


async def record_access(
    session: AsyncSession, gate: ServingGate, caller: Caller, access: Access
) -> Accessible:
    """Find the version and write the audit line of its read; nothing stays if this raises.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION, 409 for a disabled version and 410 for a
            destroyed one; DEPENDENCY_UNAVAILABLE while values are not served.
    """
    selection = VersionSelection.of(access.selector)
    query = _query(selection, wrapped=access.wrapped)
    found = (await query.run(session, _parameters(caller, access))).first()
    if found is None:
        raise no_readable_secret()
    state = StoreState(found.serving, found.generation, found.next_generation, found.restore_id)
    await gate.require_serving(session, state)
    check_readable(found.number, None if found.state is None else VersionState(found.state))
    if found.was_idle:
        await record_use(session, found.version_id)
    place = VersionPlace(
        workspace_id=caller.workspace_id,
        secret_id=access.secret_id,
        version_id=found.version_id,
    )
    return Accessible(place, found.number, found.accesses_per_minute)


def _parameters(caller: Caller, access: Access) -> dict[str, Any]:
    return {
        "secret": access.secret_id,
        "selector": access.selector,
        "audit_id": access.audit_id,
        "actor_kind": caller.kind,
        "actor_id": caller.principal_id,
        "token_id": caller.token_id,
        "request_id": caller.request_id,
        "action": access.action,
    }


# Made once for each way: to build it takes longer than to run it.
@cache
def _query(selection: VersionSelection, *, wrapped: bool) -> CompiledQuery:
    version = SecretVersionRow
    found = (
        readable_versions(
            select(
                col(SecretRow.workspace_id),
                col(version.id).label("version_id"),
                col(version.number),
                col(version.state),
                col(WorkspaceRow.secret_accesses_per_minute).label("accesses_per_minute"),
                func.coalesce(
                    col(version.last_used_at) < func.now() - timedelta(minutes=1), true()
                ).label("was_idle"),
                *_STATE.c,
            ),
            selection,
        )
        .join(WorkspaceRow, col(WorkspaceRow.id) == col(SecretRow.workspace_id))
        .join(_STATE, true())
        .cte("found")
    )
    details: list[ColumnElement[Any]] = [literal("version_id"), found.c.version_id]
    if wrapped:
        details += [literal("wrapped"), true()]
    line = {
        "workspace_id": found.c.workspace_id,
        "id": _text("audit_id"),
        "actor_kind": _text("actor_kind"),
        "actor_id": _text("actor_id"),
        "token_id": _text("token_id"),
        "request_id": _text("request_id"),
        "action": _text("action"),
        "resource_type": literal("secret"),
        "resource_id": _text("secret"),
        "outcome": literal("allowed"),
        "details": func.jsonb_build_object(*details),
    }
    allowed = select(*line.values()).where(found.c.state == VersionState.ENABLED)
    audited = (
        insert(AuditEventRow)
        .from_select(list(line), allowed)
        .returning(col(AuditEventRow.id))
        .cte("audited")
    )
    return CompiledQuery.of(select(found).add_cte(audited))


def _text(name: str) -> Any:  # noqa: ANN401 - a parameter of any column
    return bindparam(name, type_=Text)
