"""What the API refuses with."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

# The error codes that this API answers, with the status that each has.
_STATUSES: Final = {
    "invalid_input": HTTPStatus.UNPROCESSABLE_ENTITY,
    "json_error": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "token_readonly": HTTPStatus.FORBIDDEN,
    "protected": HTTPStatus.FORBIDDEN,
    "resource_limit_exceeded": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "uniqueness_error": HTTPStatus.CONFLICT,
    "resource_in_use": HTTPStatus.CONFLICT,
    "server_already_attached": HTTPStatus.CONFLICT,
    "firewall_already_applied": HTTPStatus.CONFLICT,
    "ip_not_available": HTTPStatus.CONFLICT,
    "no_subnet_available": HTTPStatus.CONFLICT,
    "service_error": HTTPStatus.CONFLICT,
    "server_not_stopped": HTTPStatus.CONFLICT,
    "placement_error": HTTPStatus.PRECONDITION_FAILED,
    "resource_unavailable": HTTPStatus.PRECONDITION_FAILED,
    "locked": HTTPStatus.LOCKED,
    "rate_limit_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}


class ApiError(Exception):
    """A refusal.

    Args:
        code: one of the API's error codes.
        message: what the API says beside it.
        details: what it says for machines.
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(_STATUSES[self.code])

    def body(self) -> dict[str, Any]:
        """Return the answer's body."""
        error = {"code": self.code, "message": self.message, "details": self.details}
        return {"error": error}


def invalid(field: str, message: str) -> ApiError:
    """Return the refusal of a field."""
    return ApiError(
        "invalid_input",
        f"invalid input in field '{field}'",
        {"fields": [{"name": field, "messages": [message]}]},
    )
