"""An access key of an AWS user: a second key beside the first, which the user may have.

The value of the secret is JSON with `access_key_id` and `secret_access_key`. The user makes and
removes its own keys; the manual has the policy for that.
"""

import importlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.clouds.rate_budget import RateBudgets, Spending
from infra.providers.access_keys import access_key_of, value_of
from infra.providers.signing import AccessKey
from infra.rotators.budgeted import Budgeted
from infra.rotators.fields import RotatorSettings, read_settings
from infra.settings import ProviderSettings

if TYPE_CHECKING:
    from infra.clouds.aws.access_keys import UserKeys


class AwsAccessKey:
    """Rotates with the user's own right to its keys.

    Args:
        providers: where AWS is.
        budgets: of calls, of all credentials.
    """

    def __init__(self, providers: ProviderSettings, budgets: RateBudgets) -> None:
        self._providers = providers
        self._budgeted = Budgeted(budgets, Provider.AWS)

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings: there are none."""
        del secret_id
        return read_settings(RotatorSettings, settings).model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """Use the current key, and look whether its user has room for another."""
        await self._budgeted.ask(
            rotation,
            lambda spending: self._keys(current, spending).check_room(_began(rotation)),
            only_reads=True,
        )

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Have AWS make a second key, which it accepts from then on.

        One that an earlier attempt made is of no use, since its secret part is lost: it goes.
        """
        return value_of(
            await self._budgeted.ask(
                rotation, lambda spending: self._keys(current, spending).create(_began(rotation))
            )
        )

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Nothing is left to do, once both keys are the same user's."""
        made = _key_in(pending).key_id
        if not await self._budgeted.ask(
            rotation, lambda spending: self._keys(current, spending).has(made), only_reads=True
        ):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The current value was changed during the rotation: its user does not have the "
                "new key. Start another rotation.",
            )

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Ask AWS who the new key is, until all of AWS knows it."""
        await self._budgeted.ask(
            rotation,
            lambda spending: self._keys(pending, spending).check_accepted(),
            only_reads=True,
        )

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Remove the new key, also one whose secret part nobody kept."""
        made = None if pending is None else _key_in(pending).key_id
        if made is None:
            await self._budgeted.ask(
                rotation,
                lambda spending: self._keys(current, spending).remove_unkept(_began(rotation)),
            )
        elif made != _key_in(current).key_id:
            await self._budgeted.ask(
                rotation, lambda spending: self._keys(current, spending).remove(made)
            )

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Turn the replaced key off and remove it, by the new one."""
        replaced = _key_in(retired).key_id
        await self._budgeted.ask(
            rotation, lambda spending: self._keys(replacement, spending).retire(replaced)
        )

    def _keys(self, value: SecretValue, spending: Spending) -> "UserKeys":
        # Loaded when it is used: the web process checks settings, without AWS's library.
        module = importlib.import_module("infra.clouds.aws.access_keys")
        keys = cast("UserKeys", module.UserKeys(_key_in(value), self._providers))
        spending.count(keys.calls)
        return keys


def _key_in(value: SecretValue) -> AccessKey:
    key = access_key_of(value)
    if key is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The value is no whole access key. Store JSON with `access_key_id` and "
            "`secret_access_key`: a rotation changes both.",
        )
    return key


def _began(rotation: Rotation) -> datetime:
    """Return when a rotation began, which its id tells (RFC 9562, UUIDv7)."""
    return datetime.fromtimestamp(int(opaque_part(rotation.operation_id)[:12], 16) / 1000, UTC)
