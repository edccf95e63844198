"""A token of Hetzner Cloud, for which there is no API: a person makes it and hands it in.

The person makes a token in Hetzner's console and adds it as a version of another secret, which the
settings name; the rotation waits for it, and proves that it may write in the same project.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.operation import WAITING_FOR_NEW_VALUE
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.clouds.rate_budget import RateBudgets, Spending
from infra.clouds.registry import open_cloud
from infra.rotators.budgeted import Budgeted
from infra.rotators.fields import (
    RotatorSettings,
    SecretId,
    read_settings,
    refuse_own_credential,
)
from infra.rotators.rotator import Values
from infra.settings import ProviderSettings

if TYPE_CHECKING:
    from infra.clouds.hcloud.cloud import HetznerCloud

_NOT_THERE: Final = frozenset({Reason.NOT_FOUND, Reason.FAILED_PRECONDITION})


class HetznerCloudTokenSettings(RotatorSettings):
    """The settings.

    Attributes:
        new_token_secret_id: a secret whose current value is the token that a person made.
    """

    new_token_secret_id: SecretId


class HetznerCloudToken:
    """Waits for a person's new token, and tries it.

    Args:
        providers: where Hetzner is.
        values: reads the secret with the new token.
        budgets: of calls, of all credentials.
    """

    def __init__(self, providers: ProviderSettings, values: Values, budgets: RateBudgets) -> None:
        self._providers = providers
        self._values = values
        self._budgeted = Budgeted(budgets, Provider.HCLOUD)

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings."""
        checked = read_settings(HetznerCloudTokenSettings, settings)
        refuse_own_credential(secret_id, checked.new_token_secret_id, "new_token_secret_id")
        return checked.model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """Use the current token."""
        await self._check(rotation, current)

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Return the token that was handed in.

        Raises:
            BulkheadError: FAILED_PRECONDITION, with what the rotation waits for in its metadata,
                until there is one.
        """
        secret_id = str(rotation.settings["new_token_secret_id"])
        try:
            found = await self._values.read(rotation, secret_id)
        except BulkheadError as error:
            if error.reason not in _NOT_THERE:
                raise
            raise _waiting(secret_id) from None
        token = SecretValue(found.text().strip().encode())
        if token.data == current.text().strip().encode():
            raise _waiting(secret_id)
        # No token is sent anywhere: the value may be any secret that somebody named by mistake.
        await self._budgeted.ask(
            rotation, lambda spending: self._open(token, spending), only_reads=True
        )
        return token

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """See that both tokens are of one project; the new one is accepted since it was made."""
        await self._budgeted.ask(
            rotation,
            lambda spending: self._open(pending, spending).check_project_of(
                self._open(current, spending)
            ),
            only_reads=True,
        )

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """See that the new token may write."""
        await self._check(rotation, pending)

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Do nothing: the new token is the person's, and may be handed in again."""

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Look whether the replaced token was deleted in the console.

        Raises:
            BulkheadError: FAILED_PRECONDITION, which is tried again, while Hetzner takes it.
        """
        del replacement
        try:
            await self._check(rotation, retired)
        except BulkheadError as error:
            if error.reason is Reason.CREDENTIAL_REJECTED:
                return
            raise
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Hetzner still accepts the replaced token. Delete it in Hetzner's console: there is no"
            " API for that.",
            retryable=True,
        )

    async def _check(self, rotation: Rotation, value: SecretValue) -> None:
        await self._budgeted.ask(
            rotation,
            lambda spending: self._open(value, spending).check_credential(),
            only_reads=True,
        )

    def _open(self, value: SecretValue, spending: Spending) -> "HetznerCloud":
        # The client library is loaded when it is used: the web process only checks settings.
        cloud = cast("HetznerCloud", open_cloud(Provider.HCLOUD, value, self._providers))
        spending.count(cloud.calls)
        return cloud


def _waiting(secret_id: str) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "Hetzner has no API for tokens. Make a token that may read and write in the project's"
        f" console, and add it as the current version of the secret {secret_id}: the rotation"
        " waits for it.",
        metadata={"waiting_for": WAITING_FOR_NEW_VALUE, "secret_id": secret_id},
        # The rotation waits, and not the step that found nothing.
        retryable=False,
    )
