"""What of an install's values a package's schema refuses, as far as that can be seen without helm.

The render checks everything again, in a program whose regular expressions take linear time.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry

from domain.secret_use import with_object_names

# A schema is another tenant's: one can be made that takes years.
_SECONDS: Final = 1.0

# A reference can lead to itself, and a part of the library that is not Python ends in a panic when
# no frame of the stack is left. A level takes three of its thousand.
_DEEPEST: Final = 200

# The keywords by which a schema points to another one, and where they point to within itself.
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_KNOWN_METASCHEMAS: Final = re.compile(
    r"https?://json-schema\.org/(schema|draft-0[4-7]/schema|draft/20(19-09|20-12)/schema)#?"
)

# Comparing all of a long list with each other is quadratic, and one call, which no deadline ends.
_COMPARED_ITEMS: Final = 200

# Python's regular expressions can take for ever, and stop the whole process meanwhile. What counts
# properties by them is left out with them.
_EXPRESSIONS: Final = ("pattern", "patternProperties", "propertyNames", "unevaluatedProperties")

_SHOWN_CHARACTERS: Final = 200

_Keyword = Callable[[Validator, Any, Any, Any], Iterator[ValidationError] | None]


def refused_schema(schema: Mapping[str, Any]) -> str | None:
    """Return why a schema of values cannot be used, to be said after its name; None: it can.

    It is self-contained: Helm itself would read `file://` and `http://` references, from where we
    run. And it is a schema, or every install would fail by it.
    """
    elsewhere = _pointer_elsewhere(schema)
    if elsewhere is not None:
        return (
            f"points to another document by a `{elsewhere}`; put the definitions into the schema "
            "itself"
        )
    if not isinstance(schema.get("$schema", ""), str):
        return "is no JSON Schema: see `$schema`"
    metaschema = validator_for(schema, default=Draft202012Validator).META_SCHEMA
    # What metaschemas refer to comes with the library.
    error = best_match(_errors(metaschema, schema))
    if error is None:
        return None
    place = "/".join(map(str, error.absolute_path)) or "its root"
    return f"is no JSON Schema: see `{place[:_SHOWN_CHARACTERS]}`"


def _pointer_elsewhere(schema: Mapping[str, Any]) -> str | None:
    left: list[Any] = [schema]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            for keyword in _REFERENCES:
                reference = part.get(keyword)
                if isinstance(reference, str) and not reference.startswith("#"):
                    return keyword
            metaschema = part.get("$schema")
            if isinstance(metaschema, str) and not _KNOWN_METASCHEMAS.fullmatch(metaschema):
                return "$schema"
            left += part.values()
    return None


def refusal_of(
    schema: Mapping[str, Any], defaults: Mapping[str, Any], values: Mapping[str, Any]
) -> ValidationError | None:
    """Return what says most of why a schema refuses values; None: nothing that is seen from here.

    What is required may come from the chart's own defaults, which are with the chart.

    Args:
        schema: of the version.
        defaults: of the version, under the values.
        values: the customer's.
    """
    merged = _merged(defaults, with_object_names(values))
    # Where a reference leads nowhere, the library by itself would fetch what it names.
    errors = _errors(schema, merged, registry=Registry())
    best: ValidationError | None = best_match(
        error for error in errors if error.validator != "required"
    )
    return best


def _merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values over defaults, as Helm lays them: objects merge, null removes a default."""
    result = dict(defaults)
    for name, value in values.items():
        before = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(before, Mapping) and isinstance(value, Mapping):
            result[name] = _merged(before, value)
        else:
            result[name] = value
    return result


def _errors(
    schema: Mapping[str, Any],
    instance: Mapping[str, Any],
    **options: Any,  # noqa: ANN401 - of the library
) -> list[ValidationError]:
    """Return what is wrong; nothing where that cannot be told, within the time for it."""
    try:
        base = validator_for(schema, default=Draft202012Validator)
        validator = _bounded(base, time.monotonic() + _SECONDS)(schema, **options)
        return list(validator.iter_errors(instance))
    # Versions that were published before schemas were checked may have what is none, of which the
    # library raises anything.
    except Exception:  # noqa: BLE001 - see above
        return []


class _TooLongError(Exception):
    """The time for a check is over, or its stack."""


def _bounded(base: type[Validator], deadline: float) -> type[Validator]:
    """Return a kind of validator that gives up at a moment, and runs no regular expressions."""
    depth = 0

    def bounded(keyword: _Keyword) -> _Keyword:
        def check(
            validator: Validator,
            said: Any,  # noqa: ANN401 - JSON
            instance: Any,  # noqa: ANN401 - JSON
            schema: Any,  # noqa: ANN401 - JSON
        ) -> Iterator[ValidationError]:
            nonlocal depth
            if time.monotonic() > deadline or depth >= _DEEPEST:
                raise _TooLongError
            depth += 1
            try:
                yield from keyword(validator, said, instance, schema) or ()
            finally:
                depth -= 1

        return check

    keywords: dict[str, _Keyword] = dict(base.VALIDATORS)
    keywords["additionalProperties"] = _unless(
        keywords["additionalProperties"], lambda _instance, schema: "patternProperties" in schema
    )
    keywords["uniqueItems"] = _unless(
        keywords["uniqueItems"],
        lambda instance, _schema: isinstance(instance, list) and len(instance) > _COMPARED_ITEMS,
    )
    for name in _EXPRESSIONS:
        keywords[name] = _nothing
    extended: type[Validator] = extend(  # type: ignore[no-untyped-call] # the library's own
        base, {name: bounded(keyword) for name, keyword in keywords.items()}
    )
    return extended


def _unless(keyword: _Keyword, skips: Callable[[Any, Any], bool]) -> _Keyword:
    def check(
        validator: Validator,
        said: Any,  # noqa: ANN401 - JSON
        instance: Any,  # noqa: ANN401 - JSON
        schema: Any,  # noqa: ANN401 - JSON
    ) -> Iterator[ValidationError]:
        if not skips(instance, schema):
            yield from keyword(validator, said, instance, schema) or ()

    return check


def _nothing(*_arguments: object) -> Iterator[ValidationError]:
    return iter(())
