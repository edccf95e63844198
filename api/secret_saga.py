"""Adding a value: what is wanted is stored, then the value, then what came of it.

The value goes to OpenBao between two transactions. A version whose value may or may not be stored
is shown to nobody; the same request with the same Idempotency-Key goes on with that version, and
without one the platform settles it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fastapi import Request
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import JSONResponse, Response

from api.clients import Clients
from api.credential_waiters import wake
from api.idempotency import REPLAYED, canonical_intent, used_for_another_request
from api.scope import open_scope
from api.secret_space import in_secret_space
from domain.caller import Caller
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.secret import SecretValue, VersionPlace, VersionState
from infra.database.queries.compute import find_waiters
from infra.database.queries.idempotency import (
    StoredAnswer,
    answer_key,
    bind_key,
    find_answer,
    reserve_key,
)
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import complete_version, place_of, read_version
from infra.database.tables import SecretVersionRow
from infra.openbao.values import STORED_BEFORE

_CREATED = 201


class Addition(Protocol):
    """What a request adds: a version, of a secret that exists or of a new one."""

    @property
    def action(self) -> str:
        """The name of it in the audit log."""

    @property
    def secret_id(self) -> str:
        """The secret that gets the version; empty for a new one."""

    @property
    def value(self) -> SecretValue:
        """The value of the version."""

    async def begin(self, session: AsyncSession, rows: NewRows, caller: Caller) -> SecretVersionRow:
        """Write the intent, and return the version that shall be."""

    async def probe(self) -> None:
        """Find out about the value while it is stored; raises nothing."""

    async def finish(self, session: AsyncSession, version: SecretVersionRow) -> Mapping[str, Any]:
        """Return the body of the answer, in the transaction that shows the version."""


async def add_version(
    request: Request,
    context: str | None,
    key: str | None,
    intent: Mapping[str, Any],
    addition: Addition,
) -> Response:
    """Add a version once, however often a request with this key is sent.

    Args:
        request: who asks, and for which address.
        context: the `Akua-Context` header.
        key: the `Idempotency-Key` header.
        intent: the body as it was understood, with the value.
        addition: what to add.

    Raises:
        BulkheadError: PERMISSION_DENIED; CONFLICT when the key stands for another request; what
            `begin` and `finish` raise; DEPENDENCY_UNAVAILABLE, after which it is not known whether
            the value was stored: with the same key it is found out.
    """
    async with open_scope(request, context) as scope:
        scope.require_scope(
            SecretScope.SECRETS_WRITE,
            addition.action,
            resource_type="secret",
            resource_id=addition.secret_id,
        )
        version = None
        if key is None:
            version = await addition.begin(scope.session, scope.rows, scope.caller)
    saga = _Saga(scope.clients, scope.caller, addition, key)
    if version is not None:
        await saga.store(_Begun(place_of(version), needs_value=True))
        return await saga.finish(place_of(version))
    fingerprint = await saga.fingerprint(
        canonical_intent(request, scope.caller.principal_id, intent)
    )
    try:
        return await saga.run_once(fingerprint)
    except BulkheadError as error:
        if not STORED_BEFORE.items() <= error.metadata.items():
            raise
    # A duplicate of this request was faster: now it is the one to go on with.
    return await saga.run_once(fingerprint)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A version that was begun.

    Attributes:
        place: where its value is, or will be.
        needs_value: it is not known to be stored.
        audit_id: of the line that allows to compare what is stored with what shall be.
    """

    place: VersionPlace
    needs_value: bool
    audit_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Saga:
    clients: Clients
    caller: Caller
    addition: Addition
    key: str | None

    async def fingerprint(self, intent: bytes) -> bytes:
        values, workspace_id = self.clients.openbao.values, self.caller.workspace_id
        return await in_secret_space(
            self.clients, workspace_id, partial(values.fingerprint, workspace_id, intent)
        )

    async def run_once(self, fingerprint: bytes) -> Response:
        """Do what the key stands for, from where an earlier attempt has left it."""
        begun = await self._begin_once(fingerprint)
        if isinstance(begun, StoredAnswer):
            return _replay(begun)
        await self.store(begun)
        return await self.finish(begun.place)

    async def _begin_once(self, fingerprint: bytes) -> _Begun | StoredAnswer:
        """Take the key and begin, or return what was begun under it, or its answer."""
        assert self.key is not None  # noqa: S101 - the caller has checked
        async with self.clients.database.workspace(self.caller.workspace_id) as session:
            stored = await reserve_key(session, self.caller.workspace_id, self.key, fingerprint)
            if stored is not None:
                if stored.fingerprint != fingerprint:
                    raise used_for_another_request()
                if stored.is_answered:
                    return stored
                begun = await self._begun_before(session, stored)
                if begun is not None:
                    return begun
            rows = NewRows()
            version = await self.addition.begin(session, rows, self.caller)
            await rows.write(session)
            await bind_key(
                session, self.key, {"secret_id": version.secret_id, "version_id": version.id}
            )
            return _Begun(place_of(version), needs_value=True)

    async def _begun_before(self, session: AsyncSession, stored: StoredAnswer) -> _Begun | None:
        place = VersionPlace(workspace_id=self.caller.workspace_id, **stored.answer)
        version = await read_version(session, place)
        # One that was given up is begun anew: its place takes no value any more.
        if version is None or version.state is VersionState.ABANDONED:
            return None
        if version.state is not VersionState.WRITING:
            return _Begun(place, needs_value=False)
        # A value that is there already is read to be compared, and every read is audited.
        audit_id = new_id(Prefix.AUDIT_EVENT)
        add_audit_event(
            session,
            self.caller,
            "secret_version.compare",
            "secret",
            place.secret_id,
            event_id=audit_id,
            details={"version_id": place.version_id},
        )
        return _Begun(place, needs_value=True, audit_id=audit_id)

    async def store(self, begun: _Begun) -> None:
        if not begun.needs_value:
            return
        values = self.clients.openbao.values
        write = partial(values.write, begun.place, self.addition.value, audit_id=begun.audit_id)
        await asyncio.gather(
            in_secret_space(self.clients, begun.place.workspace_id, write), self.addition.probe()
        )

    async def finish(self, place: VersionPlace) -> Response:
        """Show the version, audit it, and answer; in one transaction."""
        async with self.clients.database.workspace(place.workspace_id) as session:
            if self.key is not None:
                stored = await find_answer(session, self.key)
                if stored is not None:
                    return _replay(stored)
            version = await complete_version(session, place)
            body = await self.addition.finish(session, version)
            rows = NewRows()
            add_audit_event(
                rows,
                self.caller,
                self.addition.action,
                "secret",
                place.secret_id,
                details={"version_id": version.id, "version_number": version.number},
            )
            await rows.write(session)
            if self.key is not None:
                await answer_key(session, self.key, _CREATED, dict(body))
            # Nothing waits for a secret that was not there before.
            known = self.addition.secret_id
            waiters = await find_waiters(session, known) if known else []
        await wake(self.clients, waiters)
        return JSONResponse(body, _CREATED)


def _replay(stored: StoredAnswer) -> Response:
    return JSONResponse(stored.answer, stored.status, REPLAYED)
