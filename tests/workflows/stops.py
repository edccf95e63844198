"""Emergency stops of a workspace, as the API writes them."""

import contextlib
from collections.abc import AsyncIterator

from domain.caller import Caller
from domain.identifiers import Prefix, new_id
from domain.rollout import StopScope
from infra.database.tables import EmergencyStopRow
from tests.platform import Platform


async def stop(platform: Platform, caller: Caller, product_id: str | None = None) -> None:
    """Let nothing new begin in a workspace, or of a product of its own."""
    async with platform.api.workspace(caller.workspace_id) as session:
        session.add(
            EmergencyStopRow(
                workspace_id=caller.workspace_id,
                id=new_id(Prefix.EMERGENCY_STOP),
                scope=StopScope.WORKSPACE if product_id is None else StopScope.PRODUCT,
                subject=product_id or "",
                reason="a drill",
                stopped_by=caller.principal_id,
            )
        )


def lift(platform: Platform, caller: Caller) -> None:
    """Let go on what a workspace stopped."""
    with platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE emergency_stops SET lifted_at = now() WHERE workspace_id = %s",
            (caller.workspace_id,),
        )


@contextlib.asynccontextmanager
async def stopped(platform: Platform, caller: Caller) -> AsyncIterator[None]:
    """Keep a workspace stopped for as long as the context lasts."""
    await stop(platform, caller)
    try:
        yield
    finally:
        lift(platform, caller)
