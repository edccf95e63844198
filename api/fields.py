"""Shapes that several requests share, and what every text of a request must keep to."""

import unicodedata
from typing import Annotated, Any, Final

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.json_document import check_document

# NUL cannot be stored; other control characters and the two separators forge lines in terminals and
# logs; those for the direction of text make a name look like another one. Joiners are needed by
# scripts and emoji. Half surrogate pairs are refused by pydantic itself.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$"
# What people write may have lines and tabs; a carriage return would draw over its own line.
TEXT: Final = PRINTABLE.replace(r"\x00-\x1f", r"\x00-\x08\x0b-\x1f")
TIME_OF_DAY: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
DIGEST: Final = r"^(sha256:)?[0-9a-f]{64}$"

# Letters and a symbol by their category, and yet nothing is drawn for them.
_FILLERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")


class Body(BaseModel):
    """The body of a request: unknown fields are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def check_visible(value: str) -> str:
    """Refuse a name of blanks and of characters without a shape, which nobody could point at."""
    if all(
        character in _FILLERS or unicodedata.category(character) in {"Zs", "Cf"}
        for character in value
    ):
        message = "This holds blanks only; give it at least one character that can be seen."
        raise ValueError(message)
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(check_document)]

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE),
    AfterValidator(check_visible),
]

RegionId = Annotated[str, StringConstraints(max_length=54, pattern=r"^reg_[0-9a-f]{32}$")]

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most on this page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=300, description="`next_cursor` of the page before; the first page without."),
]
Identifier = Annotated[str, Path(alias="id")]
IfMatch = Annotated[
    str,
    Header(
        min_length=1,
        max_length=256,
        description="The `etag` that the change is based on; another one there is refused (409).",
    ),
]
OptionalIfMatch = Annotated[
    str | None,
    Header(
        alias="if-match",
        min_length=1,
        max_length=256,
        description="The `etag` that was looked at; another one there is refused (409).",
    ),
]
_KEY = (
    "The same key with the same request has one effect and one answer, for a day. It is the "
    "workspace's; the sender's own where a secret is sent or used, and for approvals."
)
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=64,
        pattern=r"^[\x20-\x7e]+$",
        description=_KEY,
    ),
]

RequiredIdempotencyKey = Annotated[
    str,
    Header(
        alias="idempotency-key",
        min_length=1,
        max_length=64,
        pattern=r"^[\x20-\x7e]+$",
        description=_KEY,
    ),
]


def check_id(prefix: Prefix, value: str, path: tuple[str, ...] = ("path", "id")) -> str:
    """Return an id, of the request's path unless another place is said, if it can be of this kind.

    Raises:
        BulkheadError: NOT_FOUND, the same as for one that is not there.
    """
    if not is_id(prefix, value):
        raise not_found(prefix, path)
    return value


def not_found(prefix: Prefix, path: tuple[str, ...] = ("path", "id")) -> BulkheadError:
    """Return the failure for an id that is unknown, or that belongs to somebody else."""
    noun = prefix.name.lower().replace("_", " ")
    return BulkheadError(Reason.NOT_FOUND, f"There is no such {noun} in this workspace.", path=path)


def check_etag(if_match: str | None, version: int | str) -> None:
    """Compare what a change is based on, where that is said, with what is there.

    Raises:
        BulkheadError: ABORTED, with the current etag.
    """
    if if_match is not None and if_match.removeprefix('"').removesuffix('"') != str(version):
        raise BulkheadError(
            Reason.ABORTED,
            "This was changed since you read it. Read it again and repeat with the new etag.",
            path=("header", "if-match"),
            metadata={"etag": str(version)},
        )
