"""A key of a Google Cloud service account: another key beside the first, of which it may have ten.

The value of the secret is the key file (JSON). The account makes and removes its own keys; the
manual has the role for that. A new key file differs from the old one in its key alone.
"""

import importlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.clouds.rate_budget import RateBudgets, Spending
from infra.rotators.budgeted import Budgeted
from infra.rotators.fields import RotatorSettings, read_settings
from infra.settings import ProviderSettings

if TYPE_CHECKING:
    from infra.clouds.gcp.account_keys import AccountKeys

_NAMES: Final = ("project_id", "client_email", "private_key", "private_key_id")


class GcpServiceAccountKey:
    """Rotates with the account's own right to its keys.

    Args:
        providers: where Google is.
        budgets: of calls, of all credentials.
    """

    def __init__(self, providers: ProviderSettings, budgets: RateBudgets) -> None:
        self._providers = providers
        self._budgeted = Budgeted(budgets, Provider.GCP)

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings: there are none."""
        del secret_id
        return read_settings(RotatorSettings, settings).model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """Use the current key, and look whether its account has room for another."""
        await self._budgeted.ask(
            rotation,
            lambda spending: self._keys(current, spending).check_room(_began(rotation)),
            only_reads=True,
        )

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Make a key here and give Google its public half; one of an earlier attempt goes."""
        return await self._budgeted.ask(
            rotation, lambda spending: self._keys(current, spending).create(_began(rotation))
        )

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Nothing is left to do, once both keys are the same account's."""
        made = _key_id_of(pending)
        if not await self._budgeted.ask(
            rotation, lambda spending: self._keys(current, spending).has(made), only_reads=True
        ):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The current value was changed during the rotation: its service account does not "
                "have the new key. Start another rotation.",
            )

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Get a token with the new key, until all of Google knows it."""
        await self._budgeted.ask(
            rotation,
            lambda spending: self._keys(pending, spending).check_accepted(),
            only_reads=True,
        )

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Remove the new key, also one whose private half nobody kept."""
        made = None if pending is None else _key_id_of(pending)
        if made is None:
            await self._budgeted.ask(
                rotation,
                lambda spending: self._keys(current, spending).remove_unkept(_began(rotation)),
            )
        elif made != _key_id_of(current):
            await self._budgeted.ask(
                rotation, lambda spending: self._keys(current, spending).remove(made)
            )

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Turn the replaced key off and remove it, by the new one."""
        replaced = _key_id_of(retired)
        await self._budgeted.ask(
            rotation, lambda spending: self._keys(replacement, spending).retire(replaced)
        )

    def _keys(self, value: SecretValue, spending: Spending) -> "AccountKeys":
        _key_id_of(value)
        # Loaded when it is used: the web process checks settings, without Google's library.
        module = importlib.import_module("infra.clouds.gcp.account_keys")
        keys = cast("AccountKeys", module.AccountKeys(value, self._providers))
        spending.count(keys.calls)
        return keys


def _key_id_of(value: SecretValue) -> str:
    try:
        found = json.loads(value.data)
    except (ValueError, RecursionError):
        found = None
    texts = [found.get(name) if isinstance(found, dict) else None for name in _NAMES]
    if not all(isinstance(text, str) and text for text in texts):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The value is no whole key file of a service account. Store the JSON as Google gave "
            "it, with `private_key_id`.",
        )
    return str(texts[-1])


def _began(rotation: Rotation) -> datetime:
    """Return the second in which a rotation began, which its id tells (RFC 9562, UUIDv7)."""
    milliseconds = int(opaque_part(rotation.operation_id)[:12], 16)
    return datetime.fromtimestamp(milliseconds // 1000, UTC)
