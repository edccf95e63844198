"""Which methods an address takes, for the `allow` header of a 405."""

import re
from functools import lru_cache

from fastapi import FastAPI

from api.openapi import openapi_of


def methods_of(app: FastAPI, path: str) -> str:
    """Return the methods of every route that has this path."""
    return ", ".join(
        sorted({method for pattern, method in _patterns(app) if pattern.fullmatch(path)})
    )


@lru_cache(maxsize=1)
def _patterns(app: FastAPI) -> list[tuple[re.Pattern[str], str]]:
    # The framework reports the methods of the first route that has the path, and of no other.
    return [
        (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), method.upper())
        for path, operations in openapi_of(app)["paths"].items()
        for method in operations
    ]
