"""The reference of the API's benchmark: FastAPI routes with nothing but the work itself.

`python -m tests.bench.bare_api PORT TEMPORAL_ADDRESS` with the database's address in PG* variables.
"""

import sys
import uuid
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel import select
from starlette.responses import JSONResponse
from temporalio.client import Client

from infra.database.tables import ClusterRow, OperationRow


def create_app(temporal_address: str) -> FastAPI:
    """Make the application; libpq reads the database's address from the environment."""
    engine = create_async_engine("postgresql+psycopg://", pool_size=10)
    clients: list[Client] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI):  # type: ignore[no-untyped-def]  # noqa: ANN202 - FastAPI's
        clients.append(await Client.connect(temporal_address))
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/clusters/{cluster_id}")
    async def get_cluster(cluster_id: str) -> JSONResponse:
        async with AsyncSession(engine) as session:
            row = (
                await session.scalars(select(ClusterRow).where(ClusterRow.id == cluster_id))
            ).one()
            return JSONResponse(row.model_dump(mode="json"))

    @app.get("/operations/{operation_id}")
    async def get_operation(operation_id: str) -> JSONResponse:
        async with AsyncSession(engine) as session:
            row = (
                await session.scalars(select(OperationRow).where(OperationRow.id == operation_id))
            ).one()
            return JSONResponse(row.model_dump(mode="json"))

    @app.post("/clusters", status_code=202)
    async def create(body: dict[str, str]) -> JSONResponse:
        row_id = uuid.uuid4().hex
        async with AsyncSession(engine) as session:
            await session.execute(
                text("INSERT INTO bench_rows (id, name) VALUES (:id, :name)"),
                {"id": row_id, "name": body["name"]},
            )
            await session.commit()
        await clients[0].start_workflow("Nothing", row_id, id=row_id, task_queue="nobody")
        return JSONResponse({"id": row_id}, status_code=202)

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(sys.argv[2]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
