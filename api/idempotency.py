"""`Idempotency-Key`: one effect and one answer for the same request, however often it is sent."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from infra.database.queries.access import act_in
from infra.database.queries.idempotency import answer_key, find_answer, reserve_key

REPLAYED = {"idempotency-replayed": "true"}

_NO_CONTENT = 204


async def answer_once(
    request: Request,
    scope: RequestScope,
    key: str | None,
    intent: Mapping[str, Any],
    status: int,
    effect: Callable[[], Awaitable[Mapping[str, Any]]],
    *,
    one_time: frozenset[str] = frozenset(),
) -> Response:
    """Run an effect and answer with what it returns, or repeat the answer that its key had before.

    A key is the workspace's, whoever of it sends it: what depends on the caller is checked before,
    or is a part of the intent, by `intent_of_caller`.

    Args:
        request: its method and path are part of what the key stands for.
        scope: the transaction in which both the effect and its answer are stored.
        key: the header; without one the effect runs.
        intent: the body, as it was understood.
        status: of the answer.
        effect: writes, and returns the body of the answer.
        one_time: fields of the answer that are shown once, and so are not stored.

    Raises:
        BulkheadError: CONFLICT when the key stands for another request.
    """
    if key is None:
        return _rendered(await effect(), status)
    workspace_id = scope.caller.workspace_id
    if not workspace_id:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "An Idempotency-Key belongs to a workspace; name one by the header Akua-Context.",
            path=("header", "akua-context"),
            status=400,
        )
    fingerprint = fingerprint_of(request, intent)
    stored = await reserve_key(scope.session, workspace_id, key, fingerprint)
    if stored is not None:
        if stored.fingerprint != fingerprint:
            raise used_for_another_request()
        return _rendered(stored.answer, stored.status, REPLAYED)
    body = await effect()
    await act_in(scope.session, workspace_id)
    lasting = {name: value for name, value in body.items() if name not in one_time}
    await answer_key(scope.session, key, status, lasting)
    return _rendered(body, status)


async def stored_answer(
    request: Request, scope: RequestScope, key: str | None, intent: Mapping[str, Any]
) -> Response | None:
    """Return the answer that a key had before; None: the request is to be done.

    For requests that ask something outside, without an effect there, before they call
    `answer_once`.

    Raises:
        BulkheadError: CONFLICT when the key stands for another request.
    """
    stored = None if key is None else await find_answer(scope.session, key)
    if stored is None:
        return None
    if stored.fingerprint != fingerprint_of(request, intent):
        raise used_for_another_request()
    return _rendered(stored.answer, stored.status, REPLAYED)


def _rendered(
    body: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None
) -> Response:
    if status == _NO_CONTENT:
        return Response(status_code=status, headers=headers)
    return JSONResponse(body, status, headers)


def intent_of_caller(scope: RequestScope, intent: Mapping[str, Any]) -> dict[str, Any]:
    """Return an intent that is the caller's alone: of anybody else it is another request."""
    return {**intent, "principal_id": scope.caller.principal_id}


def canonical_intent(request: Request, intent: Mapping[str, Any]) -> bytes:
    """Return what a request wants: the same bytes for the same intent."""
    canonical = json.dumps(intent, sort_keys=True, separators=(",", ":"))
    return f"{request.method} {request.url.path}\n{canonical}".encode()


def used_for_another_request() -> BulkheadError:
    """Return the failure of a key that stands for another request."""
    return BulkheadError(
        Reason.CONFLICT,
        "This Idempotency-Key was used for another request; take a new one.",
        path=("header", "idempotency-key"),
    )


def fingerprint_of(request: Request, intent: Mapping[str, Any]) -> bytes:
    """Return what tells a request with a key from every other one."""
    return hashlib.sha256(canonical_intent(request, intent)).digest()
