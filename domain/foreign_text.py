"""Texts of charts, nodes and API servers, as they may be stored and shown."""

import re
from typing import Final

# What is not shown, forges lines, turns the direction of a text, or is none for PostgreSQL: the
# API's own requests may not hold it either.
_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)

_LONGEST: Final = 300


def printable(text: str, longest: int = _LONGEST) -> str:
    """Return a text as one line that can be stored and shown, cut where it is longer."""
    return _UNPRINTABLE.sub(" ", text).strip()[:longest]
