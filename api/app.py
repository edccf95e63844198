"""The application: routes under `/v1`, documentation, health, and one way to fail."""

from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response

from api import documentation
from api.clients import Clients
from api.errors import install_error_handlers
from api.links import Links
from api.middleware import RequestMiddleware
from api.query import refuse_unknown_parameters
from api.routes import api_token, cluster, health, kubeconfig, operation, quota, region, workspace
from infra.settings import ApiSettings

VERSION: Final = "v1"


def create_app(clients: Clients, settings: ApiSettings, *, temporal_namespace: str) -> FastAPI:
    """Make the application of one process.

    Args:
        clients: used, and left open; whoever made them closes them.
        settings: under which address the API and Temporal's UI are seen from outside.
        temporal_namespace: the namespace whose workflows the UI shows.
    """
    app = FastAPI(
        title="Bulkhead",
        version=VERSION,
        # Of ours, at both addresses, and without anything loaded from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.clients = clients
    app.state.links = _links_of(settings, temporal_namespace)
    v1 = APIRouter(prefix=f"/{VERSION}", dependencies=[Depends(refuse_unknown_parameters)])
    for noun in (workspace, api_token, region, cluster, kubeconfig, operation, quota):
        v1.include_router(noun.router)
    app.include_router(v1)
    app.include_router(health.router)
    _add_documentation(app)
    install_error_handlers(app)
    app.add_middleware(RequestMiddleware)
    return app


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            summary="Kubernetes clusters, isolated for each customer.",
            routes=app.routes,
        )
        schemas = schema["components"]["schemas"]
        # What FastAPI says of its own validation errors, which never leave this API.
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operations in schema["paths"].values():
            for described in operations.values():
                unprocessable = described["responses"].get("422", {})
                if "HTTPValidationError" in str(unprocessable):
                    del described["responses"]["422"]
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        app.openapi_schema = schema
    return app.openapi_schema


def _links_of(settings: ApiSettings, temporal_namespace: str) -> Links:
    workflows_url = None
    if settings.temporal_ui_url is not None:
        base = settings.temporal_ui_url.rstrip("/")
        workflows_url = f"{base}/namespaces/{temporal_namespace}/workflows"
    return Links(settings.public_url.rstrip("/"), workflows_url)


def _add_documentation(app: FastAPI) -> None:
    async def openapi(_request: Request) -> Response:
        return JSONResponse(openapi_of(app))

    async def docs(_request: Request) -> Response:
        return HTMLResponse(documentation.page(), headers=documentation.HEADERS)

    for prefix in ("", f"/{VERSION}"):
        app.add_route(f"{prefix}/openapi.json", openapi, include_in_schema=False)
        app.add_route(f"{prefix}/docs", docs, include_in_schema=False)
