"""What an account had, as the API shows it."""

from typing import NotRequired

from typing_extensions import TypedDict

from domain.cloud import Provider
from infra.database.tables import InventoryRow
from infra.database.tables.columns import unix


class FoundResource(TypedDict):
    """Something in an account; `wanted`: something of ours needs it."""

    provider: Provider
    kind: str
    id: str
    name: str
    place: str
    stack_id: str | None
    created_at: int | None
    costs: bool
    wanted: NotRequired[bool]


class InventoryBody(TypedDict):
    """A look into an account: what was there of a machine, and how much nobody wants (`left`).

    Without a look yet, `left` and `taken_at` are null.
    """

    id: str | None
    operation_id: str | None
    machine_id: str | None
    provider: Provider | None
    left: int | None
    resources: list[FoundResource]
    taken_at: int | None


def inventory_body(row: InventoryRow) -> InventoryBody:
    """Render an inventory."""
    return InventoryBody(
        id=row.id,
        operation_id=row.operation_id,
        machine_id=row.machine_id,
        provider=row.provider,
        left=row.left,
        resources=row.resources,  # type: ignore[typeddict-item] # written as CloudResource.as_json
        taken_at=unix(row.taken_at),
    )


def no_inventory(machine_id: str) -> InventoryBody:
    """Render that nobody has looked yet."""
    return InventoryBody(
        id=None,
        operation_id=None,
        machine_id=machine_id,
        provider=None,
        left=None,
        resources=[],
        taken_at=None,
    )
