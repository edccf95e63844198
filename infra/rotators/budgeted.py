"""What rotators of cloud credentials ask, within the budget that everything with them shares."""

from collections.abc import Callable
from typing import Final, TypeVar

from domain.cloud import Provider
from domain.rotation import Rotation
from infra.clouds.rate_budget import Credential, RateBudgets, Spending
from infra.clouds.threads import in_thread

Result = TypeVar("Result")

# A step asks for keys, and makes, tries or removes one.
_CALLS: Final = 4


class Budgeted:
    """One provider's credentials that rotate.

    Args:
        budgets: of the worker.
        provider: whose calls they are.
    """

    def __init__(self, budgets: RateBudgets, provider: Provider) -> None:
        self._budgets = budgets
        self._provider = provider

    async def ask(
        self, rotation: Rotation, work: Callable[[Spending], Result], *, only_reads: bool = False
    ) -> Result:
        """Do blocking work in a thread, within the budget of the secret that rotates.

        Args:
            rotation: for which.
            work: gets what counts its calls.
            only_reads: it changes nothing; see `in_thread`.

        Raises:
            BulkheadError: RATE_LIMITED when the budget has none; what the work raises.
        """
        credential = Credential(
            workspace_id=rotation.workspace_id,
            secret_id=rotation.secret_id,
            provider=self._provider,
        )
        async with self._budgets.spending(credential, _CALLS) as spending:
            return await in_thread(
                rotation.secret_id, lambda: work(spending), only_reads=only_reads
            )
