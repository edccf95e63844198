"""Whether the process lives, and whether everything that it needs answers."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from fastapi import APIRouter, Request
from sqlalchemy import text
from starlette.responses import JSONResponse, Response
from temporalio.service import RPCError

from api.clients import Clients
from api.errors import ErrorBody, error_response
from domain.errors import BulkheadError, Reason
from infra.temporal.client import unavailable

router = APIRouter(tags=["health"])

# A part that takes longer is as good as gone for whoever asks.
_PROBE_SECONDS = 3.0


@router.get("/healthz", responses={200: {"content": {"application/json": {}}}})
async def is_alive() -> Response:
    """Answer as long as the process can answer; what load balancers should ask."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", responses={503: {"model": ErrorBody}})
async def is_ready(request: Request) -> Response:
    """Ask every part that requests need, and name the first that does not answer.

    While Temporal or OpenBao is away, most requests are still served: reads as always, and work is
    accepted that starts when they are back.
    """
    clients: Clients = request.app.state.clients
    parts: dict[str, Callable[[Clients], Awaitable[None]]] = {
        "postgresql": _ask_postgresql,
        "temporal": _ask_temporal,
        "openbao": _ask_openbao,
    }
    results = await asyncio.gather(*(_probe(ask, clients) for ask in parts.values()))
    states = {part: "ok" if ok else "unavailable" for part, ok in zip(parts, results, strict=True)}
    missing = [part for part, ok in zip(parts, results, strict=True) if not ok]
    if missing:
        return error_response(
            BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                f"Not ready: {', '.join(missing)} does not answer.",
                metadata={"dependency": missing[0], **states},
            )
        )
    return JSONResponse({"status": "ok", "parts": states})


async def _probe(ask: Callable[[Clients], Awaitable[None]], clients: Clients) -> bool:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await ask(clients)
    except (BulkheadError, TimeoutError):
        return False
    return True


async def _ask_postgresql(clients: Clients) -> None:
    async with clients.database.transaction() as session:
        await session.execute(text("SELECT 1"))


async def _ask_temporal(clients: Clients) -> None:
    client = await clients.temporal.client()
    try:
        await client.service_client.check_health(timeout=timedelta(seconds=_PROBE_SECONDS))
    except RPCError as error:
        raise unavailable() from error


async def _ask_openbao(clients: Clients) -> None:
    await asyncio.to_thread(clients.openbao.check)
