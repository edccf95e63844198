"""What Google answers, as our reasons.

The words are those of Compute Engine's reference ("Troubleshooting API errors") and of its
operations' errors; IAM and Resource Manager answer with the names of `google.rpc.Code`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httplib2
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from googleapiclient.errors import Error as ClientError
from googleapiclient.errors import HttpError

from domain.errors import BulkheadError, Reason

_WORDS: Final[Mapping[Reason, frozenset[str]]] = {
    Reason.CAPACITY_UNAVAILABLE: frozenset(
        {
            "ZONE_RESOURCE_POOL_EXHAUSTED",
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
            "REGION_RESOURCE_POOL_EXHAUSTED",
            "RESOURCE_POOL_EXHAUSTED",
            "STOCKOUT",
        }
    ),
    Reason.QUOTA_EXCEEDED: frozenset(
        {"quotaExceeded", "QUOTA_EXCEEDED", "limitExceeded", "LIMIT_EXCEEDED"}
    ),
    Reason.RATE_LIMITED: frozenset(
        {
            "rateLimitExceeded",
            "userRateLimitExceeded",
            "concurrentLimitExceeded",
            "RATE_LIMIT_EXCEEDED",
            "rate_limit_exceeded",
            "RESOURCE_OPERATION_RATE_EXCEEDED",
        }
    ),
    Reason.CREDENTIAL_REJECTED: frozenset(
        {
            "authError",
            "forbidden",
            "required",
            "insufficientPermissions",
            "accessNotConfigured",
            "billingNotEnabled",
            "PERMISSIONS_ERROR",
            "invalid_grant",
            "invalid_client",
            "unauthorized_client",
        }
    ),
    Reason.CONFLICT: frozenset(
        {
            "alreadyExists",
            "conditionNotMet",
            "resourceInUseByAnotherResource",
            "resourceNotReady",
            "RESOURCE_ALREADY_EXISTS",
            "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
            "RESOURCE_NOT_READY",
        }
    ),
    Reason.NOT_FOUND: frozenset({"notFound", "RESOURCE_NOT_FOUND"}),
    Reason.INVALID_ARGUMENT: frozenset(
        {"invalid", "invalidResourceUsage", "badRequest", "parseError", "INVALID_USAGE"}
    ),
    Reason.DEPENDENCY_UNAVAILABLE: frozenset(
        {"backendError", "internalError", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE"}
    ),
}
_REASONS: Final = {word: reason for reason, words in _WORDS.items() for word in words}

_STATUSES: Final = {
    400: Reason.INVALID_ARGUMENT,
    401: Reason.CREDENTIAL_REJECTED,
    403: Reason.CREDENTIAL_REJECTED,
    404: Reason.NOT_FOUND,
    409: Reason.CONFLICT,
    412: Reason.CONFLICT,
    429: Reason.RATE_LIMITED,
}
_SERVER_ERROR: Final = 500
# Google counts calls by the minute, and seldom says for how long it takes no more.
_PAUSE: Final = "60"

_SENTENCES: Final = {
    Reason.CAPACITY_UNAVAILABLE: "Google Cloud has no capacity for the machine there now. Try "
    "another zone or another machine type, or later.",
    Reason.QUOTA_EXCEEDED: "A quota of the Google Cloud project is used up. Ask Google for a "
    "higher one, or remove what is not needed.",
    Reason.RATE_LIMITED: "Google Cloud takes no more calls of this project for a while.",
    Reason.CREDENTIAL_REJECTED: "Google Cloud does not accept the service account's key, or the "
    "account may not do this, or an API of the project is off.",
    Reason.CONFLICT: "Google Cloud refuses the change: something of the name exists, is used by "
    "something else, or is being changed.",
    Reason.NOT_FOUND: "Google Cloud has nothing of the name.",
    Reason.INVALID_ARGUMENT: "Google Cloud does not take what was asked for.",
    Reason.DEPENDENCY_UNAVAILABLE: "Google Cloud cannot be reached, or fails. Try again later.",
    Reason.INTERNAL: "Google Cloud failed in a way that is not known here.",
}

_PERMISSION: Final = re.compile(r"'([a-z]+(?:\.[A-Za-z]+)+)'")

# What the Pulumi provider prints around Google's own words: `googleapi: Error 403: Quota 'CPUS'
# exceeded. Limit: 8.0 in region europe-west3., quotaExceeded`; for operations the message alone.
_PRINTED_STATUS: Final = re.compile(r"Error (\d{3})\b")
_PRINTED_WORD: Final = re.compile(r"\b[A-Za-z_]{6,}\b")
_PRINTED: Final = (
    (re.compile(r"does not have enough resources available"), Reason.CAPACITY_UNAVAILABLE),
    (re.compile(r"Quota '\w+' exceeded"), Reason.QUOTA_EXCEEDED),
    (re.compile(r"is already being used by|already exists"), Reason.CONFLICT),
    (
        re.compile(r"Required '[\w.]+' permission|could not find default credentials"),
        Reason.CREDENTIAL_REJECTED,
    ),
    (
        re.compile(r"connection re(fused|set)|no such host|i/o timeout|deadline exceeded|: EOF\b"),
        Reason.DEPENDENCY_UNAVAILABLE,
    ),
)
# Words that are also English ones count only as the last, which is where Google's reason stands.
_AMBIGUOUS: Final = frozenset({"invalid", "required", "forbidden"})


def reason_of_message(text: str) -> tuple[Reason, str]:
    """Return what a message of the Pulumi provider means, and a sentence of ours about it.

    INTERNAL: it tells nothing that is known here.
    """
    reason = _reason_printed(text)
    return reason, _SENTENCES[reason]


def _reason_printed(text: str) -> Reason:
    words = [word for word in _PRINTED_WORD.findall(text) if word in _REASONS]
    exact = [word for word in words if word not in _AMBIGUOUS]
    # Of a failed cleanup after the real cause, the cause comes first.
    if exact:
        return _REASONS[exact[0]]
    for pattern, reason in _PRINTED:
        if pattern.search(text):
            return reason
    status = _PRINTED_STATUS.search(text)
    if status is not None:
        return _reason_of_status(int(status[1]))
    return Reason.INTERNAL


def as_error(error: HttpError) -> BulkheadError:
    """Return what a call was answered, typed. Google's own message is not quoted whole."""
    told = _told(error)
    message = str(told.get("message", ""))
    words = [str(one.get("reason")) for one in told.get("errors", []) if isinstance(one, dict)]
    words += [str(one.get("reason")) for one in told.get("details", []) if "reason" in one]
    status = int(error.resp.status)
    reason = next((_REASONS[word] for word in words if word in _REASONS), _reason_of_status(status))
    if reason is Reason.NOT_FOUND and status == 400:  # noqa: PLR2004 - as IAM says it at times
        reason = Reason.INVALID_ARGUMENT
    metadata = {"provider_reason": next(iter(words), str(status))}
    if reason is Reason.RATE_LIMITED:
        told_seconds = str(error.resp.get("retry-after", ""))
        metadata["retry_after_seconds"] = told_seconds if told_seconds.isdigit() else _PAUSE
    missing = _PERMISSION.search(message)
    if reason is Reason.CREDENTIAL_REJECTED and missing is not None:
        metadata["missing"] = missing[1]
    return BulkheadError(reason, _SENTENCES[reason], metadata=metadata)


def of_operation(errors: Sequence[Mapping[str, Any]]) -> BulkheadError:
    """Return why an operation failed."""
    code = str(errors[0].get("code", ""))
    reason = _REASONS.get(code, Reason.DEPENDENCY_UNAVAILABLE)
    return BulkheadError(reason, _SENTENCES[reason], metadata={"provider_reason": code})


def missing_permissions(permissions: Sequence[str]) -> BulkheadError:
    """Return the failure of a credential that is too weak."""
    listed = ", ".join(permissions)
    return BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        f"The service account lacks permissions on its project: {listed}. Grant it a role with "
        "them.",
        metadata={"missing": listed},
    )


@contextmanager
def typed_errors() -> Iterator[None]:
    """Raise `BulkheadError` in place of whatever Google's client library raises."""
    try:
        yield
    except HttpError as error:
        raise as_error(error) from None
    except RefreshError as error:
        raise _of_token(error) from None
    except (TransportError, httplib2.HttpLib2Error, OSError, ClientError, GoogleAuthError):
        raise _known(Reason.DEPENDENCY_UNAVAILABLE) from None


def reason_in(error: HttpError) -> str:
    """Return Compute Engine's word for a refusal: `resourceNotReady`."""
    errors = _told(error).get("errors", [])
    return str(errors[0].get("reason", "")) if errors else ""


def _of_token(error: RefreshError) -> BulkheadError:
    """Return why there is no token: the key is refused, or nobody knows."""
    answer = error.args[1] if len(error.args) > 1 else None
    word = str(answer.get("error", "")) if isinstance(answer, dict) else ""
    return _known(_REASONS.get(word, Reason.DEPENDENCY_UNAVAILABLE))


def _known(reason: Reason) -> BulkheadError:
    metadata = {"dependency": "gcp"} if reason is Reason.DEPENDENCY_UNAVAILABLE else {}
    if reason is Reason.RATE_LIMITED:
        metadata["retry_after_seconds"] = _PAUSE
    return BulkheadError(reason, _SENTENCES[reason], metadata=metadata)


def _told(error: HttpError) -> Mapping[str, Any]:
    try:
        told = json.loads(error.content)["error"]
    except (ValueError, TypeError, KeyError):
        return {}
    return told if isinstance(told, dict) else {}


def _reason_of_status(status: int) -> Reason:
    if status >= _SERVER_ERROR:
        return Reason.DEPENDENCY_UNAVAILABLE
    return _STATUSES.get(status, Reason.INTERNAL)
