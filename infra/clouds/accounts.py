"""Opens the account of a compute config or a stack: its credential is read, audited, and used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from weakref import WeakKeyDictionary

from domain.caller import Caller
from domain.cloud_account import Account, OpenedAs
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from infra.clouds.cloud import Cloud
from infra.clouds.rate_budget import Credential, RateBudgets, Spending
from infra.clouds.registry import open_cloud
from infra.clouds.threads import in_thread
from infra.secret_store.reader import Consumer, ReadValue, SecretReader
from infra.settings import ProviderSettings


class Accounts:
    """Opens accounts for activities; the value of a credential is nowhere but in what is opened."""

    def __init__(
        self, reader: SecretReader, budgets: RateBudgets, settings: ProviderSettings
    ) -> None:
        self._reader = reader
        self._budgets = budgets
        self._settings = settings
        self._opened: WeakKeyDictionary[Cloud, OpenedAs] = WeakKeyDictionary()
        self._spending: WeakKeyDictionary[Cloud, Spending] = WeakKeyDictionary()

    def opened_as(self, cloud: Cloud) -> OpenedAs:
        """Return which account it is that was opened here."""
        return self._opened[cloud]

    async def take(self, cloud: Cloud, calls: int) -> None:
        """Take more of the budget of an account that is open, for what is done next.

        Raises:
            BulkheadError: RATE_LIMITED when the budget has none.
        """
        await self._spending[cloud].take(calls)

    @asynccontextmanager
    async def opened(
        self, account: Account, caller: Caller, *, operation_id: str, calls: int
    ) -> AsyncIterator[Cloud]:
        """Open an account for one piece of work within its credential's budget.

        Args:
            account: which.
            caller: for whom the credential is read.
            operation_id: what for.
            calls: about how many the work will make, as far as that is known; what it made, by
                the account's own count, is settled with the budget afterwards.

        Raises:
            BulkheadError: RATE_LIMITED when the budget has not so many calls, or the provider says
                so, which is then so for all; CREDENTIAL_REJECTED when there is no value to read.
        """
        credential = Credential(
            workspace_id=account.workspace_id,
            secret_id=account.secret_id,
            provider=account.provider,
        )
        async with self._budgets.spending(credential, calls) as spending:
            read = await self._read(account, caller, operation_id)
            secret_id = account.secret_id
            try:
                # A provider's library may take a second to load.
                open_it = partial(open_cloud, account.provider, read.value, self._settings)
                cloud = await in_thread(secret_id, open_it, only_reads=True)
                spending.count(cloud.calls)
                self._spending[cloud] = spending
                account_id = await in_thread(secret_id, cloud.account_id, only_reads=True)
                self._opened[cloud] = OpenedAs(version_id=read.version_id, account_id=account_id)
                yield cloud
            except BulkheadError as error:
                if error.reason is Reason.CREDENTIAL_REJECTED:
                    # So that another version, which came meanwhile, is known from this one.
                    error.metadata["version_id"] = read.version_id
                raise

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
