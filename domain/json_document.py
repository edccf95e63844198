"""JSON documents that others make: values, schemas, what a chart says of itself."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

# What PostgreSQL stores neither as text nor in jsonb.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

# Documents of people's own, such as values and schemas, have some ten levels.
_DEEPEST: Final = 100


def check_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document that PostgreSQL's jsonb, and JSON itself, can hold.

    Raises:
        ValueError: it is another one; the message quotes nothing of it.
    """
    level: list[object] = [document]
    for _ in range(_DEEPEST):
        if not level:
            return document
        level = [part for each in level for part in _parts_of(each)]
    message = f"This is nested deeper than {_DEEPEST} levels."
    raise ValueError(message)


def check_text(text: str) -> str:
    """Return a text that can be stored.

    Raises:
        ValueError: it cannot; the message does not quote it.
    """
    if _UNSTORABLE.search(text):
        message = "This holds a NUL or half of a surrogate pair, which cannot be stored."
        raise ValueError(message)
    return text


def storable(value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    """Return a value with U+FFFD in place of what cannot be stored, to be shown and not used."""
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case Mapping():
            return {storable(name): storable(part) for name, part in value.items()}
        case list():
            return [storable(part) for part in value]
        case _:
            return value


def _parts_of(node: object) -> Sequence[object]:
    match node:
        case str():
            check_text(node)
            return ()
        case float() if not math.isfinite(node):
            message = "This holds a number that is not finite, which is no JSON."
            raise ValueError(message)
        case Mapping():
            return [*node.keys(), *node.values()]
        case list():
            return node
        case _:
            return ()
