"""`fields` of a request: which part of an answer is wanted, as `a,b(c,d/e)`."""

import re
from collections.abc import Iterator
from typing import Final

from infra.local_cloud.gcp import answers
from infra.local_cloud.gcp.discovery import Json

_PIECE: Final = re.compile(r"[\w*$-]+|[(),/]")

Mask = dict[str, "Mask | None"]


def masked(answer: Json, fields: str) -> Json:
    """Return the wanted part of an answer.

    Raises:
        ApiError: 400 for what is no mask.
    """
    pieces = _PIECE.findall(fields)
    if "".join(pieces) != fields.replace(" ", ""):
        raise _no_mask(fields)
    try:
        mask = _parsed(iter([*pieces, ")"]), fields)
    except StopIteration:
        raise _no_mask(fields) from None
    kept = _part(answer, mask)
    assert isinstance(kept, dict)  # noqa: S101 - as what it is a part of
    return kept


def _parsed(pieces: Iterator[str], fields: str) -> Mask:
    """Read names until the parenthesis that ends them."""
    mask: Mask = {}
    at, name = mask, ""
    for piece in pieces:
        if piece in {",", ")"}:
            if name:
                at.setdefault(name, None)
            at, name = mask, ""
            if piece == ")":
                return mask
        elif piece == "/":
            at[name] = inner = at.get(name) or {}
            at, name = inner, ""
        elif piece == "(":
            at[name] = _parsed(pieces, fields)
            at, name = mask, ""
        else:
            name = piece
    raise _no_mask(fields)


def _part(value: object, mask: Mask | None) -> object:
    if mask is None:
        return value
    if isinstance(value, list):
        return [_part(item, mask) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _part(item, mask[wanted])
        for name, item in value.items()
        for wanted in (name if name in mask else "*",)
        if wanted in mask
    }


def _no_mask(fields: str) -> answers.ApiError:
    return answers.invalid(message=f"Invalid field selection {fields}")
