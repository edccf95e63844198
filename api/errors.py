"""The one place that renders failures as the contract's error body."""

from collections.abc import Sequence
from typing import Any, Final, NotRequired

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.fields import DIGEST, PRINTABLE, TEXT, TIME_OF_DAY
from api.methods import methods_of
from domain.errors import BulkheadError, Reason
from domain.package import SEMVER_PATTERN

# Seconds after which a client may try again what was refused for the moment.
_RETRY_AFTER: Final = "2"
_RETRY_STATUSES: Final = frozenset({429, 503})

# Of an error's metadata: the seconds after which it is worth trying again, where that is known.
RETRY_AFTER: Final = "retry_after_seconds"

# Names of unknown fields come from the request, and are shown no longer than this.
_PATH_PART_LENGTH: Final = 64

# A body can hold a wrong field in every ten bytes, and each of them makes an item of some hundred.
_MAXIMUM_ITEMS: Final = 20

_HTTP_REASONS: Final = {
    404: (Reason.NOT_FOUND, "There is no such address; /v1/openapi.json lists those there are."),
    405: (Reason.INVALID_ARGUMENT, "This address does not take that method; see the allow header."),
    413: (Reason.INVALID_ARGUMENT, "The body is larger than this API reads."),
}
_MESSAGES: Final = {
    "extra_forbidden": "There is no field of this name.",
    "json_invalid": "The body is not readable JSON.",
    "missing": "This is required.",
    "model_attributes_type": "Send a JSON object, with content-type: application/json.",
}
_UNPRINTABLE: Final = (
    "This holds a character that is not shown: a control character, a line separator, or one that "
    "turns the direction of the text."
)
# What a field has to look like, for people; a pattern is for programs.
_FORMS: Final = {
    PRINTABLE: _UNPRINTABLE,
    TEXT: _UNPRINTABLE,
    SEMVER_PATTERN: "This is no version: write all three numbers, such as 1.4.0 or 1.4.0-rc.1.",
    TIME_OF_DAY: "This is no time of day: write hours and minutes, such as 02:30 or 22:00.",
    DIGEST: "This is no digest: it is sha256: and 64 hexadecimal digits, as the plan shows it.",
}
# The routes whose requests hold what no answer may quote.
WITH_SECRETS: Final = {"secrets", "registry_connections"}
_UNREADABLE: Final = (Reason.INVALID_ARGUMENT, "The body is not readable JSON.")


class ErrorItem(TypedDict):
    """One thing that is wrong: a number to switch on, a sentence, and the place in the request."""

    code: int
    message: str
    path: NotRequired[list[str]]
    metadata: NotRequired[dict[str, str]]


class ErrorBody(TypedDict):
    """What every request that fails is answered with."""

    success: bool
    errors: list[ErrorItem]
    result: dict[str, Any]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that fails with these statuses, for OpenAPI."""
    return {status: {"model": ErrorBody} for status in (400, 401, *statuses, 413, 429, 500, 503)}


def install_error_handlers(app: FastAPI) -> None:
    """Render everything that a route or the framework raises."""
    app.add_exception_handler(BulkheadError, _on_bulkhead_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def error_response(error: BulkheadError) -> Response:
    """Render one typed failure."""
    headers = dict(_extra_headers(error.status))
    if RETRY_AFTER in error.metadata:
        headers["retry-after"] = error.metadata[RETRY_AFTER]
    return JSONResponse(_body([_item(error)]), error.status, headers)


def internal_error() -> BulkheadError:
    """Return the failure that stands for a defect of ours, whatever it was."""
    return BulkheadError(
        Reason.INTERNAL,
        "Something unexpected went wrong, and it is logged under the x-request-id of this answer.",
    )


async def _on_bulkhead_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BulkheadError)  # noqa: S101 - registered for this class alone
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    reason, message = _HTTP_REASONS.get(error.status_code, _UNREADABLE)
    response = error_response(BulkheadError(reason, message, status=error.status_code))
    if error.status_code == 405:  # noqa: PLR2004 - the status that this header belongs to
        response.headers["allow"] = methods_of(request.app, request.url.path)
    return response


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    failures = error.errors()
    # The contract answers 400 for whatever is wrong with a request about secrets.
    tags = set(request.scope["route"].tags)
    is_about_secrets = "secrets" in tags
    about_fields = all(_is_about_a_field(failure) for failure in failures)
    status = 422 if about_fields and not is_about_secrets else 400
    items = [
        _item(
            BulkheadError(
                Reason.INVALID_ARGUMENT,
                _message(failure),
                path=_path(failure, hide_names=bool(tags & WITH_SECRETS)),
            )
        )
        for failure in failures[:_MAXIMUM_ITEMS]
    ]
    return JSONResponse(_body(items), status)


def _is_about_a_field(failure: dict[str, Any]) -> bool:
    return bool(failure["loc"][0] == "body" and failure["type"] != "json_invalid")


def _message(failure: dict[str, Any]) -> str:
    """Return a sentence that cannot hold any of what was sent."""
    kind: str = failure["type"]
    match kind:
        case "value_error":
            # Raised by validators of ours, whose sentences quote nothing.
            return str(failure["ctx"]["error"])
        case "string_too_short" if failure["ctx"]["min_length"] == 1:
            return "This is empty; give it at least one character."
        case "string_pattern_mismatch" if failure["ctx"]["pattern"] in _FORMS:
            return _FORMS[failure["ctx"]["pattern"]]
        case _:
            return _MESSAGES.get(kind) or f"{failure['msg']}."


def _path(failure: dict[str, Any], *, hide_names: bool) -> tuple[str, ...]:
    if failure["type"] == "json_invalid":
        return ("body",)
    if hide_names:
        # A value may have been sent where a name belongs: as a field, a label or an alias.
        known = 1 if failure["type"] == "extra_forbidden" else 2
        return tuple(str(part) for part in failure["loc"][:known])
    return tuple(shown(str(part)) for part in failure["loc"])


def shown(part: str) -> str:
    """Return what an answer tells of a part of a path, which may be a key of the request."""
    # A JSON key may hold half of a surrogate pair, which no answer can carry.
    return part.encode(errors="replace").decode()[:_PATH_PART_LENGTH]


def _item(error: BulkheadError) -> ErrorItem:
    item = ErrorItem(
        code=error.code,
        message=error.message,
        metadata={"reason": error.reason, **error.metadata},
    )
    if error.path:
        item["path"] = list(error.path)
    return item


def _body(items: Sequence[ErrorItem]) -> ErrorBody:
    return ErrorBody(success=False, errors=list(items), result={})


def _extra_headers(status: int) -> Sequence[tuple[str, str]]:
    if status in _RETRY_STATUSES:
        return [("retry-after", _RETRY_AFTER)]
    if status == 401:  # noqa: PLR2004 - the status that this header belongs to
        return [("www-authenticate", 'Bearer realm="bulkhead"')]
    return []
