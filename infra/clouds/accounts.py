"""Opens the account of a compute config or a stack: its credential is read, audited, and used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from domain.caller import Caller
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from infra.clouds.cloud import Cloud
from infra.clouds.rate_budget import RateBudgets
from infra.clouds.registry import open_cloud
from infra.clouds.threads import in_thread
from infra.database.records.compute import Account, OpenedAs
from infra.secret_store.reader import Consumer, ReadValue, SecretReader
from infra.settings import ProviderSettings

# When a provider says that it takes no more calls, and not for how long.
_PAUSE_SECONDS: Final = 30.0


class Accounts:
    """Opens accounts for activities; the value of a credential is nowhere but in what is opened."""

    def __init__(
        self, reader: SecretReader, budgets: RateBudgets, settings: ProviderSettings
    ) -> None:
        self._reader = reader
        self._budgets = budgets
        self._settings = settings
        self._opened: WeakKeyDictionary[Cloud, OpenedAs] = WeakKeyDictionary()

    def opened_as(self, cloud: Cloud) -> OpenedAs:
        """Return which account it is that was opened here."""
        return self._opened[cloud]

    @asynccontextmanager
    async def opened(
        self, account: Account, caller: Caller, *, operation_id: str, calls: int
    ) -> AsyncIterator[Cloud]:
        """Open an account for one piece of work within its credential's budget.

        Args:
            account: which.
            caller: for whom the credential is read.
            operation_id: what for.
            calls: about how many the work will make; those that the client library makes beyond
                are taken from the budget afterwards.

        Raises:
            BulkheadError: RATE_LIMITED when the budget has not so many calls, or the provider says
                so, which is then so for all; CREDENTIAL_REJECTED when there is no value to read.
        """
        await self._budgets.take(account, calls)
        read = await self._read(account, caller, operation_id)
        secret_id = account.secret_id
        cloud: Cloud | None = None
        try:
            # A provider's library may take a second to load.
            open_it = partial(open_cloud, account.provider, read.value, self._settings)
            cloud = await in_thread(secret_id, open_it, only_reads=True)
            account_id = await in_thread(secret_id, cloud.account_id, only_reads=True)
            self._opened[cloud] = OpenedAs(version_id=read.version_id, account_id=account_id)
            yield cloud
        except BulkheadError as error:
            if error.reason is Reason.CREDENTIAL_REJECTED:
                # So that another version, which came meanwhile, is known from this one.
                error.metadata["version_id"] = read.version_id
            if error.reason is Reason.RATE_LIMITED:
                seconds = float(error.metadata.get("retry_after_seconds", _PAUSE_SECONDS))
                until = datetime.now(UTC) + timedelta(seconds=seconds)
                await self._budgets.block_until(account, until)
            raise
        finally:
            if cloud is not None and cloud.calls.made > calls:
                with suppress(BulkheadError):
                    await self._budgets.owe(account, cloud.calls.made - calls)

    async def _read(self, account: Account, caller: Caller, operation_id: str) -> ReadValue:
        try:
            return await self._reader.read(
                caller,
                account.secret_id,
                account.version,
                operation_id=operation_id,
                consumer=Consumer(type=COMPUTE_CONFIG_CONSUMER, id=account.compute_config_id),
            )
        except BulkheadError as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.FAILED_PRECONDITION}:
                raise
            raise BulkheadError(
                Reason.CREDENTIAL_REJECTED,
                f"The secret {account.secret_id} of the compute config has no version that can be "
                "read, or its time is over. Add or enable one, or change the secret's end.",
                metadata={"secret_id": account.secret_id},
            ) from error
