"""The application: routes under `/v1`, documentation, health, and one way to fail."""

from typing import Final

from fastapi import Depends, FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from api import documentation
from api.clients import Clients
from api.errors import install_error_handlers
from api.links import Links
from api.log_events import LogStreams
from api.middleware import RequestMiddleware
from api.node_endpoint import NodeEndpoint
from api.openapi import openapi_of
from api.query import refuse_unknown_parameters
from api.rate_limits import AccessLimits
from api.repeated_keys import refuse_repeated_keys
from api.routes import (
    api_token,
    artifact,
    audit_event,
    cluster,
    codec,
    compute_config,
    compute_offer,
    compute_policy,
    compute_setting,
    drift_report,
    emergency_stop,
    grant,
    health,
    install,
    install_drift,
    install_logs,
    install_render,
    install_status,
    kubeconfig,
    leak,
    machine,
    member,
    node,
    operation,
    package,
    product,
    quota,
    region,
    registry_connection,
    rollout,
    rollout_plan,
    secret,
    secret_policy,
    secret_reference,
    secret_rotation,
    secret_value,
    secret_version,
    suspension_event,
    worker_bootstrap,
    workspace,
)
from domain.audit_budget import AuditBudget
from infra.settings import ApiSettings

VERSION: Final = "v1"

# Looked through in this order for each request, so what is asked most comes first.
_ROUTES: Final = (
    secret_value,
    node,
    cluster,
    operation,
    machine,
    workspace,
    member,
    secret_policy,
    api_token,
    region,
    kubeconfig,
    quota,
    audit_event,
    secret,
    secret_version,
    secret_reference,
    secret_rotation,
    worker_bootstrap,
    compute_config,
    compute_offer,
    compute_policy,
    compute_setting,
    drift_report,
    suspension_event,
    leak,
    artifact,
    package,
    product,
    registry_connection,
    install,
    install_render,
    install_drift,
    install_status,
    install_logs,
    grant,
    rollout,
    rollout_plan,
    emergency_stop,
)


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
    app.state.nodes = NodeEndpoint(settings, clients.openbao)
    app.state.denials = AuditBudget()
    app.state.node_denials = AuditBudget()
    app.state.refused_tokens = AuditBudget()
    app.state.access_limits = AccessLimits()
    app.state.log_streams = LogStreams()
    app.state.codec_origin = codec.origin_of(settings.temporal_ui_url)
    for noun in _ROUTES:
        app.include_router(
            noun.router,
            prefix=f"/{VERSION}",
            dependencies=[Depends(_refuse_what_is_unclear)],
        )
    app.include_router(health.router)
    app.include_router(codec.router)
    _add_documentation(app)
    install_error_handlers(app)
    app.add_middleware(RequestMiddleware)
    return app


async def _refuse_what_is_unclear(request: Request) -> None:
    # One dependency, because each costs every request some 20 microseconds.
    refuse_unknown_parameters(request)
    await refuse_repeated_keys(request)


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

    async def root(_request: Request) -> Response:
        # Relative, for a proxy may serve the API below a path of its own.
        return RedirectResponse("docs")

    app.add_route("/", root, include_in_schema=False)
    for prefix in ("", f"/{VERSION}"):
        app.add_route(f"{prefix}/openapi.json", openapi, include_in_schema=False)
        app.add_route(f"{prefix}/docs", docs, include_in_schema=False)
