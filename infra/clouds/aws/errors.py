"""What AWS answers, as our reasons.

The codes are those of the API references of EC2, IAM, STS and Service Quotas ("Common errors",
"Client errors"); what is not named here is told by its form (`...NotFound`, `Invalid...`).
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import BulkheadError, Reason

_CODES: Final[dict[Reason, frozenset[str]]] = {
    Reason.CAPACITY_UNAVAILABLE: frozenset(
        {
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientCapacity",
            "InsufficientVolumeCapacity",
            # "Your requested instance type is not supported in your requested Availability Zone."
            "Unsupported",
        }
    ),
    Reason.RATE_LIMITED: frozenset(
        {
            "EC2ThrottledException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "SlowDown",
            "Throttling",
            "ThrottledException",
            "ThrottlingException",
            "TooManyRequestsException",
        }
    ),
    Reason.QUOTA_EXCEEDED: frozenset(
        {
            "AMIQuotaExceeded",
            # A new account may start nothing until it is verified.
            "PendingVerification",
            "ServiceQuotaExceededException",
        }
    ),
    Reason.CREDENTIAL_REJECTED: frozenset(
        {
            "AccessDenied",
            "AccessDeniedException",
            "AuthFailure",
            "Blocked",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "MissingAuthenticationToken",
            "OptInRequired",
            "SignatureDoesNotMatch",
            "UnauthorizedOperation",
            "UnrecognizedClientException",
        }
    ),
    Reason.CONFLICT: frozenset(
        {
            "ConcurrentModification",
            "DeleteConflict",
            "DependencyViolation",
            "EntityAlreadyExists",
            "EntityTemporarilyUnmodifiable",
            "IdempotentParameterMismatch",
            "IncorrectInstanceState",
            "IncorrectState",
            "InvalidAMIName.Duplicate",
            "InvalidSubnet.Conflict",
            "OperationNotPermitted",
            "Resource.AlreadyAssociated",
            "ResourceInUse",
            "RouteAlreadyExists",
            "VolumeInUse",
        }
    ),
    Reason.NOT_FOUND: frozenset({"InvalidAMIID.Unavailable", "NoSuchEntity"}),
    Reason.DEPENDENCY_UNAVAILABLE: frozenset(
        {
            "InternalError",
            "InternalFailure",
            "InternalServiceError",
            # Our clock or theirs.
            "RequestExpired",
            "RequestTimeout",
            "ServiceFailure",
            "ServiceUnavailable",
            "Unavailable",
        }
    ),
    Reason.INVALID_ARGUMENT: frozenset({"UnsupportedOperation"}),
}
_REASONS: Final = {code: reason for reason, codes in _CODES.items() for code in codes}

_FORMS: Final = (
    (re.compile(r"LimitExceeded(Exception)?$"), Reason.QUOTA_EXCEEDED),
    (re.compile(r"(NotFound|NotFoundException|NoSuch\w+|NotAttached)$"), Reason.NOT_FOUND),
    (re.compile(r"(Duplicate|InUse|AlreadyExists|Conflict)$"), Reason.CONFLICT),
    (re.compile(r"^(Invalid|Malformed|Missing|Validation|Unknown)"), Reason.INVALID_ARGUMENT),
)

# The message of a SignatureDoesNotMatch that is about time alone.
_CLOCK: Final = re.compile(r"Signature (expired|not yet current)")

_ACTION: Final = re.compile(r"not authorized to perform: ([\w-]+:\w+)")

# How the SDK that is inside the Pulumi provider prints an error that it has a type for, and others.
_PRINTED: Final = re.compile(
    r"(?:api error |RequestID: [\w-]*, |^|\s)([A-Z][A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*): "
)
_UNREACHABLE: Final = re.compile(
    r"request send failed|connection re(fused|set)|i/o timeout|no such host|TLS handshake"
    r"|StatusCode: 50[0234]|\bEOF\b"
)
_NO_CREDENTIAL: Final = re.compile(r"[Nn]o valid credential sources|failed to refresh cached")

_SENTENCES: Final = {
    Reason.CAPACITY_UNAVAILABLE: "AWS has no capacity of this instance type in this zone now. "
    "Choose another instance type or zone, or try later.",
    Reason.RATE_LIMITED: "AWS limits how often this account may ask. It is tried again later.",
    Reason.QUOTA_EXCEEDED: "The AWS account has reached a quota. Have it raised in Service Quotas, "
    "or remove something.",
    Reason.CREDENTIAL_REJECTED: "AWS refuses the access key, or what it may do is too little. "
    "Store a new version of the secret, or give its user the missing permissions.",
    Reason.CONFLICT: "AWS refuses this while something else uses the resource or has its name.",
    Reason.NOT_FOUND: "AWS knows no such resource.",
    Reason.INVALID_ARGUMENT: "AWS refuses the request as it is.",
    Reason.DEPENDENCY_UNAVAILABLE: "AWS cannot be reached or fails. It is tried again later.",
}
_TOO_WEAK: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_RETRY_AFTER_SECONDS: Final = 5
_SERVER_FAILS: Final = 500
_TOO_MANY: Final = 429


def reason_of(code: str, status: int = 0, message: str = "") -> Reason | None:
    """Return what an error code means; None for one that tells nothing."""
    if code == "SignatureDoesNotMatch" and _CLOCK.search(message):
        return Reason.DEPENDENCY_UNAVAILABLE
    if code in _REASONS:
        return _REASONS[code]
    for form, reason in _FORMS:
        if form.search(code):
            return reason
    if status == _TOO_MANY:
        return Reason.RATE_LIMITED
    return Reason.DEPENDENCY_UNAVAILABLE if status >= _SERVER_FAILS else None


def reason_of_message(text: str) -> tuple[Reason, str]:
    """Return the reason that a message of the Pulumi provider tells, and a sentence.

    INTERNAL when it tells none. The message wraps what the provider was doing around the error of
    AWS's SDK: `creating EC2 Instance: operation error EC2: RunInstances, https response error
    StatusCode: 500, RequestID: ..., api error InsufficientInstanceCapacity: ...`. The last code
    that means something counts.
    """
    found = [reason_of(match[1], message=text) for match in _PRINTED.finditer(text)]
    reason = next((told for told in reversed(found) if told is not None), None)
    if reason is None and _NO_CREDENTIAL.search(text):
        reason = Reason.CREDENTIAL_REJECTED
    if reason is None and _UNREACHABLE.search(text):
        reason = Reason.DEPENDENCY_UNAVAILABLE
    if reason is None:
        return Reason.INTERNAL, "AWS's Pulumi program failed; its own words are beside this."
    return reason, _SENTENCES[reason]


def code_of(error: ClientError) -> str:
    """Return AWS's code of a failure."""
    return str(error.response.get("Error", {}).get("Code", ""))


def missing_permission(error: ClientError) -> str:
    """Return the action that a key may not do: `ec2:RunInstances`."""
    told = _ACTION.search(str(error.response.get("Error", {}).get("Message", "")))
    return told[1] if told else str(error.operation_name)


def as_error(error: ClientError) -> BulkheadError:
    """Return a failure that AWS answered, typed. AWS's own message is not quoted."""
    code = code_of(error)
    answer = error.response.get("ResponseMetadata", {})
    message = str(error.response.get("Error", {}).get("Message", ""))
    reason = reason_of(code, int(answer.get("HTTPStatusCode", 0)), message)
    if reason is None:
        return BulkheadError(
            Reason.INTERNAL,
            f"AWS answered {error.operation_name} with {code or 'an unknown error'}.",
            metadata={"provider_code": code},
        )
    metadata = {"provider_code": code, "provider_operation": str(error.operation_name)}
    if reason is Reason.RATE_LIMITED:
        metadata["retry_after_seconds"] = str(_RETRY_AFTER_SECONDS)
    if reason is Reason.CREDENTIAL_REJECTED and code in _TOO_WEAK:
        metadata["missing"] = missing_permission(error)
    sentence = f"{_SENTENCES[reason]} ({error.operation_name}: {code})"
    return BulkheadError(reason, sentence, metadata=metadata)


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn everything that boto3 raises into a `BulkheadError`."""
    try:
        yield
    except ClientError as error:
        raise as_error(error) from None
    except BotoCoreError as error:
        # Connections, timeouts, answers that are no answers; parameters are of our own making.
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"{_SENTENCES[Reason.DEPENDENCY_UNAVAILABLE]} ({type(error).__name__})",
        ) from None


def unless_gone(call: Callable[..., object], **arguments: object) -> bool:
    """Call, and return False when what it is about does not exist any more."""
    try:
        call(**arguments)
    except ClientError as error:
        if reason_of(code_of(error)) is not Reason.NOT_FOUND:
            raise
        return False
    return True
