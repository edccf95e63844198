"""What Hetzner answers when it refuses, as our reasons."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import requests
from hcloud import APIException, HCloudException
from hcloud.actions import ActionException

from domain.errors import BulkheadError, Reason

TOKEN_READ_ONLY: Final = "token_readonly"  # noqa: S105 - an error's code
# The client library's own retries are over by then; the budget is refilled by the second.
RETRY_AFTER_SECONDS: Final = 30

_SENTENCES: Final = {
    Reason.CAPACITY_UNAVAILABLE: "Hetzner has no such server to give there now. Choose another"
    " instance type or place, or allow fallbacks.",
    Reason.QUOTA_EXCEEDED: "The limit of the Hetzner project is reached. Ask Hetzner to raise it,"
    " or remove what is not needed.",
    Reason.RATE_LIMITED: "Hetzner takes no more calls with this token for now. It is tried again.",
    Reason.CREDENTIAL_REJECTED: "Hetzner does not accept the token for this. Add a version with a"
    " token of the project that may read and write.",
    Reason.CONFLICT: "Hetzner refuses because of what is there already or is going on. It is tried"
    " again when that is over.",
    Reason.INVALID_ARGUMENT: "Hetzner does not take the request as it is. Correct the place, the"
    " instance type or the image.",
    Reason.NOT_FOUND: "Hetzner has no such thing in the project.",
    Reason.DEPENDENCY_UNAVAILABLE: "Hetzner's API does not answer as it should. It is tried again.",
}
_CODES: Final = {
    **dict.fromkeys(
        ("resource_unavailable", "placement_error", "no_space_left_in_location"),
        Reason.CAPACITY_UNAVAILABLE,
    ),
    **dict.fromkeys(
        ("resource_limit_exceeded", "no_subnet_available", "limit_reached"), Reason.QUOTA_EXCEEDED
    ),
    "rate_limit_exceeded": Reason.RATE_LIMITED,
    **dict.fromkeys(("unauthorized", TOKEN_READ_ONLY, "forbidden"), Reason.CREDENTIAL_REJECTED),
    **dict.fromkeys(
        (
            *("locked", "resource_locked", "conflict", "uniqueness_error", "resource_in_use"),
            *("protected", "server_already_attached", "server_already_added"),
            *("server_not_stopped", "firewall_already_applied", "ip_not_available"),
            *("primary_ip_assigned", "primary_ip_already_assigned", "volume_already_attached"),
        ),
        Reason.CONFLICT,
    ),
    **dict.fromkeys(
        (
            *("invalid_input", "json_error", "invalid_server_type", "unsupported_error"),
            *("deprecated_api_endpoint", "networks_overlap", "incompatible_network_type"),
            *("private_net_only_server", "method_not_allowed"),
        ),
        Reason.INVALID_ARGUMENT,
    ),
    **dict.fromkeys(("not_found", "firewall_resource_not_found"), Reason.NOT_FOUND),
    **dict.fromkeys(
        (
            *("service_error", "server_error", "unknown_error", "unavailable", "maintenance"),
            *("bad_gateway", "timeout", "robot_unavailable"),
        ),
        Reason.DEPENDENCY_UNAVAILABLE,
    ),
}
# Of an answer that is not the API's own: something in front of it spoke.
_STATUSES: Final = {
    401: Reason.CREDENTIAL_REJECTED,
    403: Reason.CREDENTIAL_REJECTED,
    404: Reason.NOT_FOUND,
    429: Reason.RATE_LIMITED,
}
# "error during placement (resource_unavailable, 5f1c...)": what the library and the Pulumi
# program put after the message, the second part being the id of the call.
_CODE: Final = re.compile(r"\(([a-z_]+)(?:, [0-9a-f]+)?\)")
# Of a subnet that has servers the API says `service_error`, as of what is broken.
_IN_USE: Final = re.compile(r"(?:servers|resources) are attached to it")
_NO_ANSWER: Final = re.compile(
    r"EOF|connection re|Connection (?:aborted|re|broken)|dial tcp|Max retries exceeded|timed? ?out"
    r"|RemoteDisconnected|no such host|IncompleteRead",
    re.IGNORECASE,
)


def reason_of_message(text: str) -> tuple[Reason, str]:
    """Return the reason that a message of the provider's Pulumi program tells, and a sentence.

    INTERNAL when it tells none.
    """
    if _IN_USE.search(text):
        return Reason.CONFLICT, _SENTENCES[Reason.CONFLICT]
    for match in _CODE.finditer(text):
        if reason := _CODES.get(match[1]):
            return reason, _SENTENCES[reason]
    if _NO_ANSWER.search(text):
        reason = Reason.DEPENDENCY_UNAVAILABLE
        return reason, _SENTENCES[reason]
    return Reason.INTERNAL, "Hetzner's Pulumi program failed; its own words are beside this."


@contextmanager
def typed_errors(about: str) -> Iterator[None]:
    """Turn what the client library raises into a `BulkheadError`.

    Args:
        about: what was being done, for the message: `reading the places`.
    """
    try:
        yield
    except APIException as refusal:
        raise _error(refusal.code, refusal.message, about) from None
    except ActionException as failure:
        error: dict[str, Any] = dict(failure.action.error or {})
        message = error.get("message", failure.message)
        raise _error(error.get("code", "timeout"), message, about) from None
    except (HCloudException, requests.RequestException) as failure:
        reason = Reason.DEPENDENCY_UNAVAILABLE
        message = f"{_SENTENCES[reason]} It was about {about} ({type(failure).__name__})."
        raise BulkheadError(reason, message) from None


def _error(code: int | str, message: str, about: str) -> BulkheadError:
    if isinstance(code, int):
        reason = _STATUSES.get(code, Reason.DEPENDENCY_UNAVAILABLE)
    else:
        reason = _CODES.get(code, Reason.INTERNAL)
    sentence = _SENTENCES.get(reason, "Hetzner answered what is not known here.")
    metadata = {"provider_code": str(code), "provider_message": message}
    if code == TOKEN_READ_ONLY:
        metadata["missing"] = "write"
    if reason is Reason.RATE_LIMITED:
        metadata["retry_after_seconds"] = str(RETRY_AFTER_SECONDS)
    return BulkheadError(
        reason, f"{sentence} It was about {about}: {message} ({code}).", metadata=metadata
    )
