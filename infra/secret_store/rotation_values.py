"""Other secrets that a rotation needs, such as the login of a database's administrator."""

from typing import Final

from domain.caller import system_caller
from domain.rotation import Rotation
from domain.secret import ROTATION_CONSUMER, SecretValue
from infra.secret_store.reader import Consumer, SecretReader

_ACTOR: Final = "secret-rotation"


class RotationValues:
    """The `Values` of rotators."""

    def __init__(self, reader: SecretReader) -> None:
        self._reader = reader

    async def read(self, rotation: Rotation, secret_id: str) -> SecretValue:
        """Return the `current` value; audited under the rotation's operation.

        Raises:
            BulkheadError: NOT_FOUND or FAILED_PRECONDITION when there is none to read.
        """
        found = await self._reader.read(
            system_caller(rotation.workspace_id, _ACTOR),
            secret_id,
            operation_id=rotation.operation_id,
            consumer=Consumer(type=ROTATION_CONSUMER, id=rotation.secret_id),
        )
        return found.value
