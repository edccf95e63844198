"""Answers for servers: JSON, or lines `key value` for a shell that has no reader of JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

# A proxy must not keep certificates and tokens.
_NO_STORE: Final = {"cache-control": "no-store"}


def answer(request: Request, body: Mapping[str, Any], status: int = 200) -> Response:
    """Answer as the request's `Accept` header asks: `text/plain`, or JSON.

    In text each field is a line; a list is as many lines, each with the list's name in the
    singular, and an object in it is its values with blanks between them.
    """
    if "text/plain" in request.headers.get("accept", ""):
        lines = [line for name, value in body.items() for line in _lines(name, value)]
        return PlainTextResponse("".join(f"{line}\n" for line in lines), status, _NO_STORE)
    return JSONResponse(body, status, _NO_STORE)


def _lines(name: str, value: object) -> Sequence[str]:
    if isinstance(value, list):
        singular = name.removesuffix("s")
        return [f"{singular} {' '.join(map(str, item.values()))}" for item in value]
    return [f"{name} {'' if value is None else value}"]
