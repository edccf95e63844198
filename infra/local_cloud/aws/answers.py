"""How AWS's three protocols word a refusal."""

import json
import uuid
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

# What EC2 refuses because of itself; everything else is the caller's fault, with 400.
SERVER_ERRORS: Final = {
    "InsufficientInstanceCapacity": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
    "ServiceUnavailable": 503,
}
_CREDENTIALS: Final = {
    "AuthFailure": 401,
    "MissingAuthenticationToken": 403,
    "UnauthorizedOperation": 403,
    "InvalidClientTokenId": 403,
    "SignatureDoesNotMatch": 403,
    "AccessDenied": 403,
    "DryRunOperation": 412,
    "NoSuchEntity": 404,
}


_JSON_SERVICES: Final = frozenset({"pricing", "servicequotas", "ssm"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API."""

    status: int
    content_type: str
    body: bytes


class RefusedError(Exception):
    """AWS says no.

    Attributes:
        code: its code for that.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def refusal(service: str, code: str, message: str) -> Answer:
    """Return a refusal as a service words it."""
    status = SERVER_ERRORS.get(code) or _CREDENTIALS.get(code) or 400
    if service in _JSON_SERVICES:
        body = json.dumps({"__type": code, "message": message})
        return Answer(status, "application/x-amz-json-1.1", body.encode())
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    request = uuid.uuid4()
    if service == "ec2":
        text = (
            f"<Response><Errors><Error>{error}</Error></Errors>"
            f"<RequestID>{request}</RequestID></Response>"
        )
    else:
        kind = "Sender" if status < SERVER_ERRORS["InsufficientInstanceCapacity"] else "Receiver"
        text = (
            f"<ErrorResponse><Error><Type>{kind}</Type>{error}</Error>"
            f"<RequestId>{request}</RequestId></ErrorResponse>"
        )
    declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return Answer(status, "text/xml;charset=UTF-8", (declaration + text).encode())
