"""Schemas of values are another tenant's: none makes a check fail, or run for ever."""

from threading import Thread
from typing import Any

import pytest
from jsonschema import Draft7Validator

from infra.helm.value_schemas import refusal_of, refused_schema

_DRAFT_7 = "http://json-schema.org/draft-07/schema#"
_VALUES = {"v": "abc", "n": 5, "l": [1, 2, {}]}

_NO_SCHEMAS: dict[str, dict[str, Any]] = {
    "a type that is none": {"type": "nonsense"},
    "a type that is an object": {"type": {"a": 1}},
    "properties that are a number": {"properties": 5},
    "a property that is a number": {"properties": {"v": 5}},
    "what is required is a text": {"required": "x"},
    "a length that is a text": {"properties": {"v": {"minLength": "a"}}},
    "an enumeration that is a number": {"properties": {"v": {"enum": 5}}},
    "multiples of nothing": {"properties": {"n": {"multipleOf": 0}}},
    "a reference that is a number": {"$ref": 5},
    "all of a number": {"allOf": 5},
    "a name that is a number": {"$id": 5},
    "a draft that is a list": {"$schema": ["a"]},
    "a condition that is a number": {"if": 5, "then": {}},
    "dependencies of an older draft": {"$schema": _DRAFT_7, "dependencies": {"v": 5}},
}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a reference that leads nowhere": {"$ref": "#/nowhere"},
    "a reference to itself": {"$ref": "#"},
    "definitions of themselves": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}},
    },
    "definitions of themselves in an older draft": {
        "$schema": _DRAFT_7,
        "$ref": "#/definitions/a",
        "definitions": {"a": {"allOf": [{"$ref": "#/definitions/a"}]}},
    },
    "an address that is none": {"$id": "http://[bad", "properties": {"v": {"$ref": "#/x"}}},
    "an expression that is none": {"properties": {"v": {"pattern": "("}}},
    "an expression that takes for ever": {"properties": {"v": {"pattern": "(a*)*b"}}},
}


@pytest.mark.parametrize("schema", _NO_SCHEMAS.values(), ids=_NO_SCHEMAS)
def test_what_is_no_schema_is_refused_where_it_is_published_and_harms_nobody_later(
    schema: dict[str, Any],
) -> None:
    why = refused_schema(schema)
    assert why is not None
    assert why.startswith("is no JSON Schema")
    # What was published before this was checked.
    refusal_of(schema, {}, _VALUES)


@pytest.mark.parametrize("schema", _SCHEMAS.values(), ids=_SCHEMAS)
def test_odd_schemas_may_be_published_and_refuse_nothing_that_cannot_be_told(
    schema: dict[str, Any],
) -> None:
    assert refused_schema(schema) is None
    found: list[object] = []
    # As it is asked: in a thread.
    thread = Thread(target=lambda: found.append(refusal_of(schema, {}, _VALUES)))
    thread.start()
    thread.join()
    assert found == [None]


def test_a_schema_of_schemas_is_one() -> None:
    assert refused_schema(dict(Draft7Validator.META_SCHEMA)) is None
