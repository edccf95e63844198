"""Cursor pages: `{data, has_more, next_cursor}`, newest first."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from infra.database.queries.pages import Page, Row

DEFAULT_LIMIT = 50

Ordered = TypeVar("Ordered")

# What fits into the columns that lists are ordered by.
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


def position_of(cursor: str | None, prefix: Prefix) -> str | None:
    """Return the id after which a page goes on, read from its cursor.

    A cursor needs no signature: it is checked to be the id of a row of this list, and the rows
    that it can lead to are those that the caller sees anyway.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    if cursor is None:
        return None
    position = _position_in(cursor)
    if not is_id(prefix, position):
        raise _not_ours()
    return position


def numbers_of(cursor: str, count: int) -> tuple[int, ...]:
    """Return the numbers after which a page goes on whose list is ordered by numbers.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    parts = _position_in(cursor).split(".")
    if len(parts) != count or not all(_NUMBER.fullmatch(part) for part in parts):
        raise _not_ours()
    return tuple(int(part) for part in parts)


def texts_of(cursor: str, *patterns: str) -> tuple[str, ...]:
    """Return the texts after which a page goes on whose list is ordered by texts.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    parts = _position_in(cursor).split("/")
    if len(parts) != len(patterns) or not all(map(re.fullmatch, patterns, parts)):
        raise _not_ours()
    return tuple(parts)


def page_body(page: Page[Row], body_of: Callable[[Row], Any]) -> dict[str, Any]:
    """Render a page and the cursor of the next one."""
    return {
        "data": [body_of(row) for row in page.rows],
        "has_more": page.has_more,
        "next_cursor": _cursor_of(page.rows[-1].id) if page.has_more else None,
    }


def page_of_items(bodies: Sequence[Any], *, has_more: bool) -> dict[str, Any]:
    """Render a page of what was rendered already, each with its `id`."""
    return {
        "data": list(bodies),
        "has_more": has_more,
        "next_cursor": _cursor_of(bodies[-1]["id"]) if has_more else None,
    }


def _cursor_of(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def numbered_page(
    rows: Sequence[Ordered],
    limit: int,
    body_of: Callable[[Ordered], Any],
    numbers: Callable[[Ordered], tuple[int, ...]],
) -> dict[str, Any]:
    """Render a page of a list that is ordered by numbers.

    Args:
        rows: up to one more than the page holds.
        limit: how many it holds.
        body_of: renders a row.
        numbers: by which the list is ordered; `numbers_of` reads them from the cursor.
    """
    return _ordered_page(rows, limit, body_of, lambda row: ".".join(map(str, numbers(row))))


def texts_page(
    rows: Sequence[Ordered],
    limit: int,
    body_of: Callable[[Ordered], Any],
    texts: Callable[[Ordered], tuple[str, ...]],
) -> dict[str, Any]:
    """Render a page of a list that is ordered by texts; `texts_of` reads them from the cursor."""
    return _ordered_page(rows, limit, body_of, lambda row: "/".join(texts(row)))


def _ordered_page(
    rows: Sequence[Ordered],
    limit: int,
    body_of: Callable[[Ordered], Any],
    position: Callable[[Ordered], str],
) -> dict[str, Any]:
    shown = rows[:limit]
    has_more = len(rows) > limit
    return {
        "data": [body_of(row) for row in shown],
        "has_more": has_more,
        "next_cursor": _cursor_of(position(shown[-1])) if has_more else None,
    }


def _position_in(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def _not_ours() -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        "This cursor is not one that this list gave out; begin again without one.",
        path=("query", "cursor"),
        status=400,
    )
