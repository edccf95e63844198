"""An install's values, as a request brings them: the package's schema, and references to secrets.

The render checks everything again, in a program whose regular expressions take linear time; here
a person learns in the answer what is wrong, and where.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from jsonschema.exceptions import ValidationError

from api.scope import RequestScope
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.secret_use import secret_uses_in
from infra.database.queries.secret import select_readable
from infra.database.tables import PackageVersionRow
from infra.helm.value_schemas import refusal_of

# Each is looked up, and becomes a Kubernetes Secret of its own.
_MOST_SECRETS: Final = 200

# An error's sentence shows this much of the schema, and a path no more than so many parts.
_SHOWN: Final = 200
_SHOWN_PARTS: Final = 32
_PART_LENGTH: Final = 64


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
    error = await asyncio.to_thread(
        refusal_of, version.input_schema, version.default_values, values
    )
    if error is not None:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            _sentence(error),
            path=("body", field, *_path(error)),
            metadata={"keyword": str(error.validator)},
        )


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
    known = {(use.secret_id, use.alias) for _, use in secret_uses_in(before)}
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
        if (secret_id, alias) not in known:
            # A chart, or a log, can show the value to whoever chose them; another alias is
            # another value.
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
