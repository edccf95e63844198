"""Cursor pages: `{data, has_more, next_cursor}`, newest first."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from infra.database.queries.pages import Page, Row

DEFAULT_LIMIT = 50


def position_of(cursor: str | None, prefix: Prefix) -> str | None:
    """Return the id after which a page goes on, read from its cursor.

    A cursor needs no signature: it is checked to be the id of a row of this list, and the rows
    that it can lead to are those that the caller sees anyway.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    if cursor is None:
        return None
    try:
        position = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
    except (binascii.Error, ValueError):
        position = ""
    if not is_id(prefix, position):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "This cursor is not one that this list gave out; begin again without one.",
            path=("query", "cursor"),
            status=400,
        )
    return position


def page_body(page: Page[Row], body_of: Callable[[Row], Any]) -> dict[str, Any]:
    """Render a page and the cursor of the next one."""
    return {
        "data": [body_of(row) for row in page.rows],
        "has_more": page.has_more,
        "next_cursor": _cursor_of(page.rows[-1].id) if page.has_more else None,
    }


def _cursor_of(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")
