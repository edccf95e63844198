"""Credentials of machines that exist: without them nobody could remove what is in the account.

So that no force overrides this. Whoever makes machines holds the secret's row, as those do who
would take the credential away.
"""

from collections.abc import Sequence
from typing import Final

from api.scope import RequestScope
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from infra.database.queries.compute import configs_in_use
from infra.database.records.secret import current_number
from infra.database.tables import ComputeConfigRow, SecretRow, SecretVersionRow

# How many consumers an error names; the others are counted.
_NAMED: Final = 20


async def refuse_needed_secret(scope: RequestScope, secret: SecretRow) -> None:
    """Refuse to delete a secret whose credential machines, or what is left of them, need.

    Raises:
        BulkheadError: FAILED_PRECONDITION, with the consumers.
    """
    needed_by = await configs_in_use(scope.session, secret.id)
    if needed_by:
        raise _needed(needed_by, noun="secret")


async def refuse_needed_version(
    scope: RequestScope, secret: SecretRow, version: SecretVersionRow
) -> None:
    """Refuse to disable or destroy the version with which machines that exist are managed.

    Raises:
        BulkheadError: FAILED_PRECONDITION, with the consumers.
    """
    is_current = version.number == current_number(secret)
    needed_by = [
        config
        for config in await configs_in_use(scope.session, secret.id)
        if config.secret_version_id == version.id or (not config.secret_version_id and is_current)
    ]
    if needed_by:
        raise _needed(needed_by, noun=f"version {version.number}")


def _needed(configs: Sequence[ComputeConfigRow], *, noun: str) -> BulkheadError:
    consumers = [f"{COMPUTE_CONFIG_CONSUMER}/{config.id}" for config in configs]
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"This {noun} stays, whatever force says: machines, or open findings of what is left of "
        "some, are in its credential's account, and nobody could remove them without it. Remove "
        "them first; for a version alone, let the compute configs that metadata.consumers names "
        "use another one.",
        metadata={
            "consumers": ", ".join(consumers[:_NAMED]),
            "consumer_count": str(len(consumers)),
        },
    )
