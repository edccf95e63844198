"""An install's values, as a request brings them: the package's schema, and references to secrets.

The render checks everything again, in a program whose regular expressions take linear time; here
a person learns in the answer what is wrong, and where.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from api.scope import RequestScope
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.secret_use import secret_uses_in, with_object_names
from infra.database.queries.secret import select_readable
from infra.database.tables import PackageVersionRow

# A schema is another tenant's: one can be made that takes years.
_SECONDS: Final = 1.0

# Comparing all of a long list with each other is quadratic, and one call, which no deadline ends.
_COMPARED_ITEMS: Final = 200

# Python's regular expressions can take for ever, and stop the whole process meanwhile. What counts
# properties by them is left out with them.
_EXPRESSIONS: Final = ("pattern", "patternProperties", "propertyNames", "unevaluatedProperties")

# Each is looked up, and becomes a Kubernetes Secret of its own.
_MOST_SECRETS: Final = 200

# An error's sentence shows this much of the schema, and a path no more than so many parts.
_SHOWN: Final = 200
_SHOWN_PARTS: Final = 32
_PART_LENGTH: Final = 64

_Keyword = Callable[[Validator, Any, Any, Any], Iterator[ValidationError] | None]


async def check_values(
    scope: RequestScope,
    version: PackageVersionRow,
    values: Mapping[str, Any],
    field: str,
    *,
    before: Mapping[str, Any],
) -> None:
    """Refuse values that the version's schema refuses, or whose references lead to no secret.

    Args:
        scope: the request's transaction.
        version: of the package that gets the values.
        values: the customer's.
        field: of the body, in which they are.
        before: what the install has; only who may read a secret may let an install have it.

    Raises:
        BulkheadError: INVALID_ARGUMENT with the path; PERMISSION_DENIED for a secret that its
            caller may not read; NOT_FOUND for a secret or an alias that is not there;
            FAILED_PRECONDITION for a secret that is deleted or a version that cannot be read.
    """
    await _check_references(scope, values, field, before)
    effective = merged(version.default_values, with_object_names(values))
    error = await asyncio.to_thread(first_error, version.input_schema, effective)
    if error is not None:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            _sentence(error),
            path=("body", field, *_path(error)),
            metadata={"keyword": str(error.validator)},
        )


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values over defaults, as Helm lays them: objects merge, null removes a default."""
    result = dict(defaults)
    for name, value in values.items():
        before = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(before, Mapping) and isinstance(value, Mapping):
            result[name] = merged(before, value)
        else:
            result[name] = value
    return result


def first_error(schema: Mapping[str, Any], values: Mapping[str, Any]) -> ValidationError | None:
    """Return the failure that says most; None: there is none that can be seen from here.

    What is required may come from the chart's own defaults, which are with the chart.
    """
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


def _path(error: ValidationError) -> list[str]:
    parts = list(error.absolute_path)[:_SHOWN_PARTS]
    return [str(part).encode(errors="replace").decode()[:_PART_LENGTH] for part in parts]


def _sentence(error: ValidationError) -> str:
    """Say what the schema wants. Never what was sent: somebody may have sent a secret."""
    wanted = json.dumps(error.validator_value)[:_SHOWN]
    match error.validator:
        case "type":
            return f"The package wants this to be of the type {wanted}."
        case "enum" | "const":
            return f"The package wants one of these here: {wanted}."
        case "additionalProperties":
            return "There is a field here that the package does not know."
        case keyword:
            return f"The package's schema refuses this: {keyword} is {wanted}."


async def _check_references(
    scope: RequestScope, values: Mapping[str, Any], field: str, before: Mapping[str, Any]
) -> None:
    known = {use.secret_id for _, use in secret_uses_in(before)}
    first_paths: dict[tuple[str, str], tuple[str, ...]] = {}
    for path, use in secret_uses_in(values, ("body", field)):
        first_paths.setdefault((use.secret_id, use.alias), path)
    if len(first_paths) > _MOST_SECRETS:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"The values refer to more than {_MOST_SECRETS} secrets.",
            path=("body", field),
        )
    for (secret_id, alias), path in first_paths.items():
        if secret_id not in known:
            # A chart, or a log, can show the value to whoever chose them.
            scope.require_scope(
                SecretScope.SECRETS_ACCESS,
                "install.use_secret",
                resource_type="secret",
                resource_id=secret_id,
            )
        try:
            await select_readable(scope.session, secret_id, alias)
        except BulkheadError as error:
            raise BulkheadError(
                error.reason, error.message, path=path, status=error.status
            ) from error
