"""The OpenAPI document: what the routes say of themselves, less what the framework adds."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

# What needs no token.
_OPEN = ("/healthz", "/readyz")

_EVENTS = "text/event-stream"


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
        for path, operations in schema["paths"].items():
            for described in operations.values():
                if path in _OPEN:
                    described["security"] = []
                for answer in described["responses"].values():
                    # FastAPI adds JSON to what a route says of its answer.
                    if _EVENTS in answer.get("content", {}):
                        answer["content"] = {_EVENTS: answer["content"][_EVENTS]}
                unprocessable = described["responses"].get("422", {})
                if "HTTPValidationError" in str(unprocessable):
                    del described["responses"]["422"]
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        app.openapi_schema = schema
    return app.openapi_schema
