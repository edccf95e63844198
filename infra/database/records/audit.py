"""Audit lines, written in the transaction that they witness."""

from typing import Any

from domain.caller import Caller
from domain.identifiers import Prefix, new_id
from infra.database.records.new_rows import Adds
from infra.database.tables import AuditEventRow


def add_audit_event(
    session: Adds,
    caller: Caller,
    action: str,
    resource_type: str,
    resource_id: str,
    *,
    outcome: str = "allowed",
    details: dict[str, Any] | None = None,
    event_id: str | None = None,
) -> None:
    """Add one line to the caller's workspace.

    Args:
        session: the transaction of the change.
        caller: who did it.
        action: `<noun>.<verb>`, such as `cluster.create`.
        resource_type: the noun.
        resource_id: the id of the thing.
        outcome: `allowed`, `denied`, `succeeded`, `failed` or `cancelled`.
        details: facts for a reviewer; never a value that could be secret.
        event_id: the id of the line, where something else has to carry it too.
    """
    session.add(
        AuditEventRow(
            workspace_id=caller.workspace_id,
            id=event_id or new_id(Prefix.AUDIT_EVENT),
            actor_kind=caller.kind,
            actor_id=caller.principal_id,
            token_id=caller.token_id,
            request_id=caller.request_id,
            action=action,
            resource_type=resource_type,
            resource_id=resource_id,
            outcome=outcome,
            details=details or {},
        )
    )
