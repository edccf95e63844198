"""Reads of values by the platform itself: audited before the value is read, like everybody's."""

import asyncio
from dataclasses import dataclass, field

from sqlalchemy import func, update
from sqlmodel import col

from domain.caller import Caller
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import CURRENT, SecretValue, VersionPlace
from infra.database.engine import Database
from infra.database.queries.compute import select_credential
from infra.database.queries.secret import select_readable
from infra.database.records.audit import add_audit_event
from infra.database.records.secret import place_of
from infra.database.tables import SecretReferenceRow, SecretVersionRow
from infra.openbao.values import ValueStore
from infra.secret_store.serving import ServingGate


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumer:
    """What uses a secret, as its references name it."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class ReadValue:
    """A value, and which version it is of."""

    version_id: str
    number: int
    value: SecretValue = field(repr=False)


class SecretReader:
    """Reads values for activities."""

    def __init__(self, database: Database, values: ValueStore, gate: ServingGate) -> None:
        self._database = database
        self._values = values
        self._gate = gate

    async def read(
        self,
        caller: Caller,
        secret_id: str,
        selector: str = CURRENT,
        *,
        operation_id: str,
        consumer: Consumer | None = None,
    ) -> ReadValue:
        """Return a value; the audit line with the operation's id is committed before.

        Args:
            caller: for whom, in whose workspace.
            secret_id: the secret.
            selector: an id of a version, `latest`, or an alias.
            operation_id: what the value is needed for.
            consumer: what uses it; its reference then tells which version it used last, and when.

        Raises:
            BulkheadError: NOT_FOUND or FAILED_PRECONDITION when there is nothing to read;
                DEPENDENCY_UNAVAILABLE when it cannot be audited or read.
        """
        audit_id = new_id(Prefix.AUDIT_EVENT)
        await self._gate.ask_ahead()
        async with self._database.workspace(caller.workspace_id) as session:
            await self._gate.require_serving(session)
            is_credential = consumer is not None and consumer.type == COMPUTE_CONFIG_CONSUMER
            select = select_credential if is_credential else select_readable
            _, version = await select(session, secret_id, selector)
            add_audit_event(
                session,
                caller,
                "secret_version.access",
                "secret",
                secret_id,
                event_id=audit_id,
                details={"version_id": version.id, "operation_id": operation_id},
            )
            await session.execute(
                update(SecretVersionRow)
                .where(col(SecretVersionRow.id) == version.id)
                .values(last_used_at=func.now())
            )
            if consumer is not None:
                await session.execute(
                    update(SecretReferenceRow)
                    .where(
                        col(SecretReferenceRow.secret_id) == secret_id,
                        col(SecretReferenceRow.consumer_type) == consumer.type,
                        col(SecretReferenceRow.consumer_id) == consumer.id,
                    )
                    .values(last_used_number=version.number, last_used_at=func.now())
                )
        value = await asyncio.to_thread(self._values.read, place_of(version), audit_id)
        return ReadValue(version.id, version.number, value)

    async def read_in_any_state(
        self, caller: Caller, place: VersionPlace, *, operation_id: str
    ) -> SecretValue | None:
        """Return a value that a running operation works on, also of a version that is not shown.

        The audit line with the operation's id is committed before. None: there is no value.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when it cannot be audited or read.
        """
        audit_id = new_id(Prefix.AUDIT_EVENT)
        await self._gate.ask_ahead()
        async with self._database.workspace(caller.workspace_id) as session:
            await self._gate.require_serving(session)
            add_audit_event(
                session,
                caller,
                "secret_version.access",
                "secret",
                place.secret_id,
                event_id=audit_id,
                details={"version_id": place.version_id, "operation_id": operation_id},
            )
        try:
            return await asyncio.to_thread(self._values.read, place, audit_id)
        except BulkheadError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
