"""What of an install's values a package's schema refuses, as far as that can be seen without helm.

The render checks everything again, in a program whose regular expressions take linear time.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from domain.secret_use import with_object_names

# A schema is another tenant's: one can be made that takes years.
_SECONDS: Final = 1.0

# Comparing all of a long list with each other is quadratic, and one call, which no deadline ends.
_COMPARED_ITEMS: Final = 200

# Python's regular expressions can take for ever, and stop the whole process meanwhile. What counts
# properties by them is left out with them.
_EXPRESSIONS: Final = ("pattern", "patternProperties", "propertyNames", "unevaluatedProperties")

_Keyword = Callable[[Validator, Any, Any, Any], Iterator[ValidationError] | None]


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
    return _first_error(schema, _merged(defaults, with_object_names(values)))


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


def _first_error(schema: Mapping[str, Any], values: Mapping[str, Any]) -> ValidationError | None:
    base = validator_for(schema, default=Draft202012Validator)
    validator = _bounded(base, time.monotonic() + _SECONDS)(schema, registry=Registry())
    try:
        errors = [error for error in validator.iter_errors(values) if error.validator != "required"]
        best: ValidationError | None = best_match(errors)
    except (_TooLongError, Unresolvable, RecursionError):
        return None
    return best


class _TooLongError(Exception):
    """The time for a check is over."""


def _bounded(base: type[Validator], deadline: float) -> type[Validator]:
    """Return a kind of validator that gives up at a moment, and runs no regular expressions."""

    def bounded(keyword: _Keyword) -> _Keyword:
        def check(
            validator: Validator,
            said: Any,  # noqa: ANN401 - JSON
            instance: Any,  # noqa: ANN401 - JSON
            schema: Any,  # noqa: ANN401 - JSON
        ) -> Iterator[ValidationError]:
            if time.monotonic() > deadline:
                raise _TooLongError
            yield from keyword(validator, said, instance, schema) or ()

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
