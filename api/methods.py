"""Which methods an address takes, for the `allow` header of a 405."""

import re
from functools import lru_cache

from fastapi import FastAPI
from starlette.routing import Route

from api.openapi import openapi_of


def methods_of(app: FastAPI, path: str) -> str:
    """Return the methods of every route that has this path."""
    return ", ".join(
        sorted({method for pattern, method in _patterns(app) if pattern.fullmatch(path)})
    )


@lru_cache(maxsize=1)
def _patterns(app: FastAPI) -> list[tuple[re.Pattern[str], str]]:
    # The framework reports the methods of the first route that has the path, and of no other.
    described = [
        (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), method.upper())
        for path, operations in openapi_of(app)["paths"].items()
        for method in operations
    ]
    # The document does not tell of itself, nor of the pages that show it.
    others = [
        (re.compile(re.escape(route.path)), method)
        for route in app.routes
        if isinstance(route, Route) and not route.include_in_schema
        for method in route.methods or ()
    ]
    return described + others
