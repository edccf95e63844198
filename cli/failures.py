"""How requests fail, read from the API's answers and from connections that broke."""

from http import HTTPStatus

import httpx

from cli.errors import ApiError, ApiFault, CliError
from cli.hints import next_commands_for

_TRANSIENT_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# Answered with a transient status, but no wait will change it.
_LASTING_REASONS = frozenset({"CAPACITY_UNAVAILABLE", "QUOTA_EXCEEDED"})

# How OpenSSL's refusal of a certificate reads; httpx hands it on as text only.
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def refused(response: httpx.Response, *, url: str, path: str) -> ApiError:
    """Describe an answer that is no success.

    Args:
        response: the answer, which was read.
        url: of the API, for what a person types next.
        path: what was asked for.
    """
    faults = _faults_of(response)
    if faults is None:
        return not_ours(response, url)
    metadata = faults[0].metadata
    return ApiError(
        status=response.status_code,
        faults=faults,
        request_id=response.headers.get("x-request-id"),
        retry_after_seconds=_retry_after(response),
        next_commands=next_commands_for(
            status=response.status_code,
            reason=metadata.get("reason", ""),
            request_path=path,
            fault_path=faults[0].path,
            metadata=metadata,
            url=url,
        ),
    )


def not_ours(response: httpx.Response, url: str) -> ApiError:
    """Describe an answer that the API cannot have given: a proxy's page, another server."""
    kind = response.headers.get("content-type", "no content type")
    message = (
        f"{url} answered HTTP {response.status_code} with {kind}, "
        "which is not an answer of this API. Is the address right?"
    )
    transient = response.status_code in _TRANSIENT_STATUSES
    return ApiError(
        status=response.status_code,
        faults=(ApiFault(message),),
        request_id=response.headers.get("x-request-id"),
        retry_after_seconds=_retry_after(response) if transient else None,
    )


def was_never_sent(error: httpx.TransportError) -> bool:
    """Whether the request certainly did not reach the API."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def is_lasting(error: httpx.TransportError) -> bool:
    """Whether the same attempt fails again whenever it is made."""
    return _UNTRUSTED in str(error)


def is_transient(failure: CliError) -> bool:
    """Whether a short wait may change the answer."""
    return (
        isinstance(failure, ApiError)
        and failure.status in _TRANSIENT_STATUSES
        and failure.reason not in _LASTING_REASONS
    )


def cause_of(error: httpx.TransportError) -> str:
    """Return why no answer came, for a person."""
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    text = str(error) or type(error).__name__
    if _UNTRUSTED in text:
        return (
            "its certificate is not signed by an authority that is trusted here "
            "(--ca-file names another one)"
        )
    # The operating system's own sentence, without Python's error number before it.
    return text.rsplit("] ", 1)[-1].rstrip(".")


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the API asks to wait; its clock format is seconds only."""
    text = response.headers.get("retry-after", "").strip()
    return float(text) if text.isdecimal() else None


def _faults_of(response: httpx.Response) -> tuple[ApiFault, ...] | None:
    try:
        entries = response.json()["errors"]
        faults = tuple(
            ApiFault(
                message=str(entry["message"]),
                code=entry.get("code"),
                path=tuple(str(part) for part in entry.get("path") or ()),
                metadata={k: str(v) for k, v in (entry.get("metadata") or {}).items()},
            )
            for entry in entries
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return faults or None
