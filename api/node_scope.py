"""A server's transaction: its signature verified, its machine found, its clock compared.

A server is no principal of the public API: it may say how it fares, and get what renews its own
machine, by a signature of the key that it made.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from sqlmodel.ext.asyncio.session import AsyncSession

from api.clients import Clients
from api.node_identity import Proof, proof_of
from api.scope import run_after_commit
from domain.audit_budget import AuditBudget
from domain.caller import Caller, system_caller
from domain.errors import BulkheadError, Reason
from infra.database.queries.machine import enter_by_key
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import NewRows
from infra.database.tables import MachineRow

# A signature is of use for this long, in either direction of a clock that is off.
CLOCK_TOLERANCE_SECONDS: Final = 300

# Ten years; what is further off is shown as that.
_LARGEST_OFFSET: Final = 315_360_000


@dataclass(slots=True)
class NodeScope:
    """What a route for servers works with; `after_commit` as in `RequestScope`."""

    session: AsyncSession
    machine: MachineRow
    caller: Caller
    clients: Clients
    clock_offset_seconds: int
    rows: NewRows = field(default_factory=NewRows)
    after_commit: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def audit(self, action: str, **details: str | int | None) -> None:
        """Add the audit line of what this transaction does."""
        add_audit_event(
            self.rows, self.caller, action, "machine", self.machine.id, details=dict(details)
        )


@asynccontextmanager
async def open_node_scope(request: Request, action: str) -> AsyncIterator[NodeScope]:
    """Open the transaction of a signed request; commit at the end, or roll back.

    Args:
        request: carries the signature, over its body too.
        action: what the audit log calls it when it is refused.

    Raises:
        BulkheadError: UNAUTHENTICATED for an unknown key, another signature, a machine whose
            credentials were revoked, or a clock that is too far off.
    """
    proof = proof_of(request.headers, request.method, request.url.path, await request.body())
    clients: Clients = request.app.state.clients
    refusal: _Refusal | None = None
    async with clients.database.transaction() as session:
        machine = await enter_by_key(session, proof.key_hash)
        if machine is None:
            raise _unknown()
        request.state.caller = {"workspace_id": machine.workspace_id, "principal_id": machine.id}
        offset = proof.time - round(time.time())
        refusal = _judge(machine, proof, offset)
        if refusal is None:
            caller = _caller_of(request, machine)
            scope = NodeScope(session, machine, caller, clients, offset)
            yield scope
            await scope.rows.write(session)
        else:
            await _record(request, session, machine, refusal, action)
    if refusal is not None:
        raise refusal.error
    for hook in scope.after_commit:
        await run_after_commit(hook)


@dataclass(frozen=True, slots=True)
class _Refusal:
    why: str
    error: BulkheadError
    clock_offset_seconds: int | None = None


def _judge(machine: MachineRow, proof: Proof, offset: int) -> _Refusal | None:
    if machine.identity_key is None or not proof.is_of(machine.identity_key):
        return _Refusal("signature", _unauthenticated("The signature is not of this key."))
    if machine.credentials_revoked_at is not None:
        return _Refusal(
            "revoked",
            _unauthenticated(
                "The credentials of this machine were revoked: it is no longer part of its "
                "cluster. Run `bulkhead-node uninstall` on the server."
            ),
        )
    if abs(offset) <= CLOCK_TOLERANCE_SECONDS:
        return None
    direction = "ahead" if offset > 0 else "behind"
    error = BulkheadError(
        Reason.UNAUTHENTICATED,
        f"The server's clock is {abs(offset)} seconds {direction}; at most "
        f"{CLOCK_TOLERANCE_SECONDS} are tolerated. Set it right (for example by turning NTP on), "
        "and the server comes back by itself.",
        path=("header", "bulkhead-time"),
        metadata={"clock_offset_seconds": str(offset)},
    )
    return _Refusal("clock", error, clock_offset_seconds=offset)


async def _record(
    request: Request, session: AsyncSession, machine: MachineRow, refusal: _Refusal, action: str
) -> None:
    denials: AuditBudget = request.app.state.node_denials
    if refusal.clock_offset_seconds is not None:
        offset = refusal.clock_offset_seconds
        machine.clock_offset_seconds = max(-_LARGEST_OFFSET, min(offset, _LARGEST_OFFSET))
    # A server that was shut out comes back with every turn of its timer; one line an hour tells it.
    if denials.take(f"{machine.id} {refusal.why}") == 1:
        add_audit_event(
            session,
            _caller_of(request, machine),
            action,
            "machine",
            machine.id,
            outcome="denied",
            details={"why": refusal.why},
        )


def _caller_of(request: Request, machine: MachineRow) -> Caller:
    caller = system_caller(machine.workspace_id, machine.id)
    return Caller(
        kind=caller.kind,
        principal_id=caller.principal_id,
        workspace_id=caller.workspace_id,
        role=caller.role,
        request_id=request.state.request_id,
    )


def _unknown() -> BulkheadError:
    return _unauthenticated(
        "No machine has this key: either it is no longer part of its cluster, or it never was. Run "
        "`bulkhead-node uninstall` on the server, or let it join with a new bootstrap."
    )


def _unauthenticated(message: str) -> BulkheadError:
    return BulkheadError(Reason.UNAUTHENTICATED, message, path=("header", "bulkhead-signature"))
