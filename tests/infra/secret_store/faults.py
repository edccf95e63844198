"""Crashes at chosen moments: before and after each request to OpenBao and each transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.engine import Database, DatabaseRole
from infra.openbao.client import OpenBao
from infra.openbao.session import OpenBaoSession
from infra.secret_store.ledger import Ledger, LedgerEntry
from infra.settings import DatabaseSettings


class Crash(BaseException):
    """The process ends here. Nothing of ours catches it."""


class Faults:
    """Counts the moments at which a process may die, and ends it at one of them."""

    def __init__(self) -> None:
        self.passed = 0
        self.crashes = 0
        self._dies_at: int | None = None

    def arm(self, moment: int | None) -> None:
        """Die at the moment of this number, counted from now; None: never."""
        self.passed = 0
        self._dies_at = moment

    def moment(self) -> None:
        """Die, if it is time."""
        here, self.passed = self.passed, self.passed + 1
        if here == self._dies_at:
            self._dies_at = None
            self.crashes += 1
            raise Crash


class FaultyDatabase(Database):
    """Dies before a transaction, before its commit, and after it."""

    def __init__(self, settings: DatabaseSettings, role: DatabaseRole, faults: Faults) -> None:
        super().__init__(settings, role)
        self._faults = faults

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        self._faults.moment()
        async with super().transaction() as session:
            yield session
            self._faults.moment()
        self._faults.moment()


class _FaultyAdapter(HTTPAdapter):
    """Dies before a request leaves, and before its answer is seen."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]  # noqa: ANN401
        self._faults.moment()
        answer = super().send(request, **options)
        self._faults.moment()
        return answer


def make_faulty(client: OpenBao, faults: Faults) -> None:
    """Have every request of a client be a moment at which the process may die."""
    session: OpenBaoSession = client._session  # noqa: SLF001 - no setting of ours breaks things
    session._http.mount("http://", _FaultyAdapter(faults))  # noqa: SLF001


class FaultyLedger(Ledger):
    """Dies before a line is written, and after it."""

    faults: Faults

    def append(self, entry: LedgerEntry) -> None:
        self.faults.moment()
        super().append(entry)
        self.faults.moment()
