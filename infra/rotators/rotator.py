"""What a rotation asks of a target, whatever it is.

Every method may be called again after a crash, and finds what an earlier call did. Values live
for one call: they are never logged, put into an error, or returned to a workflow.

A method may be cancelled when its time is up. It ends then, and nothing of it goes on: a thread
that changes something is waited for, and its calls are bounded.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from domain.rotation import Rotation
from domain.secret import SecretValue


class Values(Protocol):
    """Reads other secrets of the workspace that the settings name, such as an administrator's."""

    async def read(self, rotation: Rotation, secret_id: str) -> SecretValue:
        """Return the `current` value; audited under the rotation's operation.

        Raises:
            BulkheadError: NOT_FOUND or FAILED_PRECONDITION when there is none to read.
        """


class Rotator(Protocol):
    """Replaces the credential of one kind of target."""

    def check_settings(self, secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with their defaults.

        Raises:
            BulkheadError: INVALID_ARGUMENT (400) for settings that cannot work, among them the
                rotator's own credential: a secret that would be rotated with itself.
        """

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """Find the target and be let in, without telling it anything of this rotation.

        A rotation that fails before this has succeeded once left nothing to be taken back.
        """

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Make the new value. Without an effect on the target where the target allows that."""

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Make the target accept the new value, beside the current one."""

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Use the new value at the target.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when the target does not take it.
        """

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Take `create` and `set` back: the target accepts the current value and not the new one.

        The current value still works afterwards. Called also when `set` was never reached, and
        without a pending value when `create` may have been reached and nothing of it was kept.
        """

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Make the target refuse the value that was replaced.

        Args:
            rotation: which.
            retired: what was `current` before.
            replacement: the new value, with which the target may be told.
        """


class AlternatingRotator(Rotator, Protocol):
    """A rotator whose `set` ends the value before the current one, as two users take turns.

    When a rotation fails later, that value is put back where it was good before.
    """

    async def would_end(
        self, rotation: Rotation, pending: SecretValue, previous: SecretValue
    ) -> bool:
        """Tell whether the target accepts the previous value, and will not after `set`."""

    async def put_back(
        self, rotation: Rotation, pending: SecretValue, previous: SecretValue
    ) -> None:
        """Make the target accept the previous value in place of the new one, if it accepts that."""
