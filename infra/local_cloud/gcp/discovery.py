"""What Google's API descriptions say: which methods there are, and what a body may hold.

The descriptions are those inside the official client library, so that the client and this server
cannot share a mistake of ours.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import googleapiclient

Json = dict[str, Any]

_DOCUMENTS: Final = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
_VARIABLE: Final = re.compile(r"\{\+?([^}]+)\}")
_OUTPUT_ONLY: Final = ("[output only]", "output only.", "@outputonly")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}
_WIDE_INTEGERS: Final = frozenset({"int64", "uint64"})


class InvalidBodyError(ValueError):
    """A body that its description does not allow; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of an API.

    Attributes:
        id: such as `compute.networks.insert`.
        verb: of HTTP.
        path: matches a request's path, with its variables as groups.
        variables: the names of those, in order.
        request: the schema of its body.
        response: the schema of its answer.
        parameters: names of what may stand in the query.
    """

    id: str
    verb: str
    path: re.Pattern[str]
    variables: tuple[str, ...]
    request: str | None
    response: str | None
    parameters: frozenset[str]


@dataclass(frozen=True, slots=True)
class Api:
    """One API: its methods and schemas."""

    name: str
    methods: tuple[Method, ...]
    schemas: Mapping[str, Json] = field(repr=False)

    def check(self, schema: str, value: object, where: str) -> Any:
        """Return a request's body without what only answers have.

        Raises:
            InvalidBodyError: a field is unknown, or its value is none that the field may have.
        """
        return _checked(self.schemas, self.schemas[schema], value, where, drop_output=True)

    def verify(self, schema: str, value: object) -> None:
        """Raise InvalidBodyError for an answer of ours that the description does not allow."""
        _checked(self.schemas, self.schemas[schema], value, "answer", drop_output=False)


@cache
def load_api(name: str, version: str) -> Api:
    """Read the description of an API."""
    document = json.loads((_DOCUMENTS / f"{name}.{version}.json").read_text())
    common = frozenset(document["parameters"])
    prefix = f"/{document['servicePath']}"
    methods = tuple(_method(found, prefix, common) for found in _methods_of(document))
    return Api(name, methods, document["schemas"])


def _methods_of(resource: Json) -> Iterator[Json]:
    yield from resource.get("methods", {}).values()
    for child in resource.get("resources", {}).values():
        yield from _methods_of(child)


def _method(found: Json, prefix: str, common: frozenset[str]) -> Method:
    template = prefix + str(found.get("flatPath") or found["path"])
    pieces = _VARIABLE.split(template)
    # Every second piece is a variable's name. A colon begins a custom verb (`keys/{key}:disable`).
    pattern = "".join(
        "([^/:]+)" if position % 2 else re.escape(piece) for position, piece in enumerate(pieces)
    )
    return Method(
        id=found["id"],
        verb=found["httpMethod"],
        path=re.compile(pattern),
        variables=tuple(pieces[1::2]),
        request=found.get("request", {}).get("$ref"),
        response=found.get("response", {}).get("$ref"),
        parameters=common
        | {
            name
            for name, parameter in found.get("parameters", {}).items()
            if parameter["location"] == "query"
        },
    )


def _checked(
    schemas: Mapping[str, Json], schema: Json, value: object, where: str, *, drop_output: bool
) -> Any:
    if "$ref" in schema:
        schema = schemas[schema["$ref"]]
    kind = schema.get("type", "any")
    if kind == "object":
        return _checked_object(schemas, schema, value, where, drop_output=drop_output)
    if kind == "array":
        if not isinstance(value, list):
            raise _unfit(where, value)
        return [
            _checked(schemas, schema["items"], item, f"{where}[{index}]", drop_output=drop_output)
            for index, item in enumerate(value)
        ]
    return _checked_scalar(schema, kind, value, where)


def _checked_object(
    schemas: Mapping[str, Json], schema: Json, value: object, where: str, *, drop_output: bool
) -> Json:
    if not isinstance(value, dict):
        raise _unfit(where, value)
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    kept: Json = {}
    for name, item in value.items():
        described = properties.get(name, others)
        if described is None:
            message = (
                f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': "
                "Cannot find field."
            )
            raise InvalidBodyError(message)
        if item is None or (drop_output and _is_output_only(described)):
            continue
        kept[name] = _checked(schemas, described, item, f"{where}.{name}", drop_output=drop_output)
    return kept


def _checked_scalar(schema: Json, kind: str, value: object, where: str) -> object:
    if kind == "any":
        return value
    if kind == "integer" or schema.get("format") in _WIDE_INTEGERS:
        return _checked_integer(kind, value, where)
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise _unfit(where, value)
    if "enum" in schema and value not in schema["enum"]:
        raise _unfit(where, value)
    pattern = schema.get("pattern")
    if pattern is not None and isinstance(value, str) and value and not _fits(pattern, value):
        message = (
            f"Invalid value for field '{where}': '{value}'. Must be a match of regex '{pattern}'"
        )
        raise InvalidBodyError(message)
    return value


def _fits(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value) is not None


def _checked_integer(kind: str, value: object, where: str) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _unfit(where, value)
    try:
        number = int(value)
    except ValueError:
        raise _unfit(where, value) from None
    # Numbers of 64 bits travel as text.
    return number if kind == "integer" else str(number)


def _is_output_only(schema: Json) -> bool:
    description = str(schema.get("description", "")).lower()
    return bool(schema.get("readOnly")) or description.startswith(_OUTPUT_ONLY)


def _unfit(where: str, value: object) -> InvalidBodyError:
    shown = value if isinstance(value, str | int | float | bool) else type(value).__name__
    return InvalidBodyError(f"Invalid value for field '{where}': '{shown}'.")
