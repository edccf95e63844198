"""Artifacts: the programs that servers download, named by their content."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import FileResponse, Response

from api.errors import documented
from api.node_endpoint import NodeEndpoint
from domain.errors import BulkheadError, Reason

router = APIRouter(prefix="/artifacts", tags=["nodes"])

# A name of the content: what is kept under it never changes.
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


@router.get(
    "/{sha256}",
    response_class=FileResponse,
    responses=documented(404),
    openapi_extra={"security": []},
)
async def get_artifact(
    request: Request,
    sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
) -> Response:
    """Get a program by the SHA-256 of its content; whoever takes it compares that."""
    nodes: NodeEndpoint = request.app.state.nodes
    file = await asyncio.to_thread(nodes.find_program, sha256)
    if file is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "There is no such program here (any more). A server that needs it asks which "
            "there are with POST /v1/nodes/self:resume.",
            path=("path", "sha256"),
        )
    return FileResponse(file, headers=_FOR_EVER, media_type="application/octet-stream")
