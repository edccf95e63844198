"""How Google's APIs refuse: the bodies of their errors, which differ from API to API."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from infra.local_cloud.gcp.discovery import Json

_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


@dataclass(frozen=True, slots=True)
class ApiError(Exception):
    """A refusal.

    Attributes:
        status: of HTTP.
        reason: Compute Engine's word, `errors[].reason`.
        message: for a person.
        info: the reason of an `ErrorInfo`, where the real API adds one.
    """

    status: int
    reason: str
    message: str
    info: str | None = None

    def body(self) -> Json:
        """Return what is answered; IAM and Resource Manager read `status`, Compute `errors`."""
        domain = "usageLimits" if self.reason.endswith("LimitExceeded") else "global"
        error: Json = {
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "domain": domain, "reason": self.reason}],
            "status": _STATUSES.get(self.status, HTTPStatus(self.status).name),
        }
        if self.info is not None:
            error["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": self.info,
                    "domain": "googleapis.com",
                }
            ]
        return {"error": error}


def invalid(message: str) -> ApiError:
    """Return the refusal of a value."""
    return ApiError(400, "invalid", message)


def invalid_field(*, field: str, value: object, why: str = "") -> ApiError:
    """Return the refusal of a field's value."""
    return invalid(message=f"Invalid value for field '{field}': '{value}'. {why}".rstrip())


def not_found(path: str) -> ApiError:
    """Return the refusal for what does not exist."""
    return ApiError(404, "notFound", f"The resource '{path}' was not found")


def already_exists(path: str) -> ApiError:
    """Return the refusal of a name that is taken."""
    return ApiError(409, "alreadyExists", f"The resource '{path}' already exists")


def not_ready(path: str) -> ApiError:
    """Return the refusal while an operation works on a resource."""
    return ApiError(400, "resourceNotReady", f"The resource '{path}' is not ready")


def in_use(what: str, path: str, user: str) -> ApiError:
    """Return the refusal to delete what something else uses."""
    return ApiError(
        400,
        "resourceInUseByAnotherResource",
        f"The {what} resource '{path}' is already being used by '{user}'",
    )


def quota_exceeded(metric: str, limit: float, where: str) -> ApiError:
    """Return the refusal of more than a quota allows."""
    return ApiError(
        403, "quotaExceeded", f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {where}."
    )


def condition_not_met(what: str) -> ApiError:
    """Return the refusal of a change that was decided on an older state."""
    return ApiError(
        412,
        "conditionNotMet",
        f"{what} fingerprint either invalid or resource {what.lower()} have changed",
    )


def forbidden(permission: str, path: str) -> ApiError:
    """Return the refusal of a caller without a permission."""
    return ApiError(
        403,
        "forbidden",
        f"Required '{permission}' permission for '{path}'",
        info="IAM_PERMISSION_DENIED",
    )


def api_off(host: str, project: str) -> ApiError:
    """Return the refusal of every method of an API that the caller's project has not enabled."""
    return ApiError(
        403,
        "accessNotConfigured",
        f"{host} has not been used in project {project} before or it is disabled.",
        info="SERVICE_DISABLED",
    )


def unauthenticated() -> ApiError:
    """Return the refusal of a request without a token that is in force."""
    return ApiError(
        401,
        "authError",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential.",
    )


def rate_limited() -> ApiError:
    """Return the refusal of one request too many."""
    return ApiError(
        403,
        "rateLimitExceeded",
        "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service "
        "'compute.googleapis.com'.",
        info="RATE_LIMIT_EXCEEDED",
    )


def not_emulated(method: str) -> ApiError:
    """Return the refusal of what the real API has and this one has not."""
    return ApiError(501, "notImplemented", f"{method} is not emulated.")
