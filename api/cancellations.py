"""A stored cancellation, passed on after its commit."""

from api.scope import RequestScope
from domain.operation import OperationType
from infra.temporal.start import cancel_operation


async def send_cancellation(
    scope: RequestScope, operation_type: OperationType, owner_id: str, operation_id: str
) -> None:
    """Pass a stored cancellation on to the workflow."""
    client = await scope.clients.temporal.client()
    await cancel_operation(client, operation_type, owner_id, operation_id)
