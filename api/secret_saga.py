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
from api.idempotency import (
    REPLAYED,
    canonical_intent,
    intent_of_caller,
    used_for_another_request,
)
from api.scope import RequestScope, open_scope
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
    saga = _Saga(request, context, key, intent, addition)
    try:
        return await saga.run()
    except BulkheadError as error:
        if key is None or not STORED_BEFORE.items() <= error.metadata.items():
            raise
    # A duplicate of this request was faster: now it is the one to go on with.
    return await saga.run()


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
    request: Request
    context: str | None
    key: str | None
    intent: Mapping[str, Any]
    addition: Addition

    @property
    def clients(self) -> Clients:
        clients: Clients = self.request.app.state.clients
        return clients

    async def run(self) -> Response:
        """Add the version, or go on from where an earlier attempt with the key has left it."""
        workspace_id, begun = await self._begin()
        while begun is None:
            # Asked outside a transaction: a store that hangs would hold its connection.
            learn = partial(self.clients.openbao.fingerprints.learn, workspace_id)
            await in_secret_space(self.clients, workspace_id, learn)
            workspace_id, begun = await self._begin()
        if isinstance(begun, StoredAnswer):
            return _replay(begun)
        await self._store(begun)
        return await self._finish(begun.place)

    async def _begin(self) -> tuple[str, _Begun | StoredAnswer | None]:
        """Write the intent, in the workspace returned.

        None: the key of the workspace's fingerprints is not known yet.
        """
        async with open_scope(self.request, self.context) as scope:
            scope.require_scope(
                SecretScope.SECRETS_WRITE,
                self.addition.action,
                resource_type="secret",
                resource_id=self.addition.secret_id,
            )
            workspace_id = scope.caller.workspace_id
            if self.key is None:
                return workspace_id, _Begun(place_of(await self._intend(scope)), needs_value=True)
            return workspace_id, await self._begin_once(scope, self.key)

    async def _intend(self, scope: RequestScope) -> SecretVersionRow:
        """Write the intent, and who has it: the value may be shown by a schedule later."""
        version = await self.addition.begin(scope.session, scope.rows, scope.caller)
        scope.audit(
            self.addition.action,
            "secret",
            version.secret_id,
            version_id=version.id,
            version_number=version.number,
        )
        return version

    async def _begin_once(self, scope: RequestScope, key: str) -> _Begun | StoredAnswer | None:
        """Take the key and begin, or return what was begun under it, or its answer."""
        workspace_id = scope.caller.workspace_id
        # By whether a key is refused, another writer could find out which value was sent with it.
        intent = intent_of_caller(scope, self.intent)
        fingerprint = self.clients.openbao.fingerprints.of(
            workspace_id, canonical_intent(self.request, intent)
        )
        if fingerprint is None:
            return None
        stored = await reserve_key(scope.session, workspace_id, key, fingerprint)
        if stored is not None:
            if stored.fingerprint != fingerprint:
                raise used_for_another_request()
            if stored.is_answered:
                return stored
            begun = await self._begun_before(scope, stored)
            if begun is not None:
                return begun
        version = await self._intend(scope)
        subject = {"secret_id": version.secret_id, "version_id": version.id}
        await bind_key(scope.session, key, subject)
        return _Begun(place_of(version), needs_value=True)

    async def _begun_before(self, scope: RequestScope, stored: StoredAnswer) -> _Begun | None:
        place = VersionPlace(workspace_id=scope.caller.workspace_id, **stored.answer)
        version = await read_version(scope.session, place)
        # One that was given up is begun anew: its place takes no value any more.
        if version is None or version.state is VersionState.ABANDONED:
            return None
        if version.state is not VersionState.WRITING:
            return _Begun(place, needs_value=False)
        # A value that is there already is read to be compared, and every read is audited.
        audit_id = new_id(Prefix.AUDIT_EVENT)
        add_audit_event(
            scope.session,
            scope.caller,
            "secret_version.compare",
            "secret",
            place.secret_id,
            event_id=audit_id,
            details={"version_id": place.version_id},
        )
        return _Begun(place, needs_value=True, audit_id=audit_id)

    async def _store(self, begun: _Begun) -> None:
        if not begun.needs_value:
            return
        values = self.clients.openbao.values
        write = partial(values.write, begun.place, self.addition.value, audit_id=begun.audit_id)
        await asyncio.gather(
            in_secret_space(self.clients, begun.place.workspace_id, write), self.addition.probe()
        )

    async def _finish(self, place: VersionPlace) -> Response:
        """Show the version, and answer; in one transaction."""
        async with self.clients.database.workspace(place.workspace_id) as session:
            if self.key is not None:
                stored = await find_answer(session, self.key)
                if stored is not None:
                    return _replay(stored)
            version = await complete_version(session, place)
            body = await self.addition.finish(session, version)
            if self.key is not None:
                await answer_key(session, self.key, _CREATED, dict(body))
            # Nothing waits for a secret that was not there before.
            known = self.addition.secret_id
            waiters = await find_waiters(session, known) if known else []
        await wake(self.clients, waiters)
        return JSONResponse(body, _CREATED)


def _replay(stored: StoredAnswer) -> Response:
    return JSONResponse(stored.answer, stored.status, REPLAYED)
