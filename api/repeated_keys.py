"""Repeated keys of a JSON body: refused, for readers differ in which of the values they take.

The framework has parsed the body by then and kept the last one, so it is read a second time here:
some microseconds for a body of some fields, and nothing for one of a single field.
"""

import json
import typing
from collections.abc import Sequence
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel

from api.errors import WITH_SECRETS, shown
from domain.errors import BulkheadError, Reason

# What is in them is the caller's own, and may be a secret by a mistake.
_VALUES: Final = frozenset({"value", "values"})


class _Members(list[tuple[str, Any]]):
    """An object as it was written, with its keys as often as they are there."""


class _RepeatedKeyError(Exception):
    """Some object of the body has a key twice."""


async def refuse_repeated_keys(request: Request) -> None:
    """Refuse a body that holds a key twice in one object.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400, with the place.
    """
    route = request.scope["route"]
    if route.body_field is None:
        return
    body = await request.body()
    if not _has_repeated_keys(body):
        return
    hide_names = bool(WITH_SECRETS.intersection(route.tags))
    known = _fields_of(route.body_field.field_info.annotation) if hide_names else None
    raise _repeated(body, known)


def refuse_repeated_keys_in(body: bytes) -> None:
    """Refuse the same in a body that a route reads itself.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400, with the place.
    """
    if _has_repeated_keys(body):
        raise _repeated(body, None)


def _has_repeated_keys(body: bytes) -> bool:
    if body.count(b":") <= 1:
        return False
    try:
        json.loads(body, object_pairs_hook=_check)
    except _RepeatedKeyError:
        return True
    except (ValueError, RecursionError):
        # Whoever reads it says what is wrong with it.
        return False
    return False


def _repeated(body: bytes, known: frozenset[str] | None) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        "A key is here more than once in the same JSON object; give each key once.",
        path=("body", *_shown_part_of(_place_in(body), known)),
        status=400,
    )


def _check(members: list[tuple[str, Any]]) -> None:
    if len(members) > 1 and len(dict(members)) < len(members):
        raise _RepeatedKeyError


def _place_in(body: bytes) -> Sequence[str]:
    """Return the keys that lead to the first repeated one, and that one."""
    pending: list[tuple[tuple[str, ...], Any]] = [
        ((), json.loads(body, object_pairs_hook=_Members))
    ]
    while pending:
        place, node = pending.pop()
        inside: Sequence[tuple[str, Any]] = ()
        if isinstance(node, _Members):
            seen: set[str] = set()
            for key, _ in node:
                if key in seen:
                    return (*place, key)
                seen.add(key)
            inside = node
        elif isinstance(node, list):
            inside = [(str(index), part) for index, part in enumerate(node)]
        pending += [((*place, key), part) for key, part in reversed(inside)]
    return ()


def _shown_part_of(place: Sequence[str], known: frozenset[str] | None) -> Sequence[str]:
    """Return what an answer may tell of a place: with `known`, one of these names or nothing."""
    if known is not None:
        return place[:1] if place[:1] and place[0] in known else ()
    inside = next((at for at, key in enumerate(place) if key in _VALUES), len(place))
    return [shown(part) for part in place[: inside + 1]]


def _fields_of(kind: Any) -> frozenset[str]:  # noqa: ANN401 - whatever a route says it reads
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return frozenset(kind.model_fields)
    return frozenset().union(*map(_fields_of, typing.get_args(kind)))
