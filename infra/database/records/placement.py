"""A control-plane host announces itself."""

import os

from sqlalchemy import text

from infra.database.engine import Database
from infra.settings import ControlPlaneSettings

# Left to the operating system and to the worker on a host that does not say what it gives.
_KEPT_BY_THE_HOST_BYTES = 2 * 1024**3


async def register_host(database: Database, settings: ControlPlaneSettings) -> None:
    """Make this host known, or bring what is known about it up to date.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
    """
    memory = settings.memory_bytes or _physical_memory() - _KEPT_BY_THE_HOST_BYTES
    async with database.transaction() as session:
        await session.execute(
            text("SELECT register_host(:name, :memory, :slots, :address, :first_port)"),
            {
                "name": settings.host,
                "memory": memory,
                "slots": settings.slots,
                "address": settings.advertise_host,
                "first_port": settings.first_port,
            },
        )


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
