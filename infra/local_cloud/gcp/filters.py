"""The filters of lists: the part of their language that is about equality and beginnings."""

import re
from collections.abc import Callable
from typing import Any, Final

from infra.local_cloud.gcp.answers import invalid_field
from infra.local_cloud.gcp.discovery import Json

_TERM: Final = re.compile(
    r"""\(?\s*(?P<field>[A-Za-z][\w.-]*)\s*(?P<operator>!=|=|:|\beq\b|\bne\b)\s*"""
    r"""(?P<value>"[^"]*"|'[^']*'|[^\s()]+)\s*\)?\s*(?:AND\b\s*)?"""
)


def filter_of(text: str | None) -> Callable[[Json], bool]:
    """Return whether a resource is meant by a filter.

    Raises:
        ApiError: it is none, or of a part of the language that is not spoken here.
    """
    if not text:
        return lambda _: True
    terms, position = [], 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise invalid_field(field="filter", value=text, why="Invalid list filter expression.")
        terms.append((found["field"], found["operator"], found["value"].strip("\"'")))
        position = found.end()
    return lambda body: all(_holds(body, *term) for term in terms)


def _holds(body: Json, field: str, operator: str, wanted: str) -> bool:
    value = _value_at(body, field.split("."))
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if operator == ":":
        return value is not None and (
            wanted == "*" or re.fullmatch(re.escape(wanted).replace(r"\*", ".*"), text) is not None
        )
    if operator in {"eq", "ne"}:
        # The older form: a regular expression for the whole value.
        return (re.fullmatch(wanted, text) is not None) == (operator == "eq")
    return (text == wanted) == (operator == "=")


def _value_at(body: Any, names: list[str]) -> Any:
    for name in names:
        body = body.get(name) if isinstance(body, dict) else None
    return body
