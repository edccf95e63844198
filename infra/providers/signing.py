"""AWS Signature Version 4 of one kind of request: a POST of a form to a service's root.

The SDK's signer would bring all of botocore into the web process, which loads no cloud SDK.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_FORM: Final = "application/x-www-form-urlencoded"
_SIGNED_HEADERS: Final = "content-type;host;x-amz-date"


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessKey:
    """An access key of AWS. The secret part is never printed."""

    key_id: str
    secret: str = field(repr=False)


def signed_headers(
    key: AccessKey, *, host: str, region: str, service: str, form: bytes, now: datetime
) -> dict[str, str]:
    """Return the headers of `POST / HTTP/1.1` with this form, signed.

    Args:
        key: who asks.
        host: the `Host` header, with the port if the URL has one.
        region: of the endpoint.
        service: as in the credential scope, such as `sts`.
        form: the body.
        now: in UTC; a service accepts a signature for a few minutes.
    """
    time = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    canonical = "\n".join(
        [
            "POST",
            "/",
            "",
            f"content-type:{_FORM}",
            f"host:{host}",
            f"x-amz-date:{time}",
            "",
            _SIGNED_HEADERS,
            hashlib.sha256(form).hexdigest(),
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signing_key = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        signing_key = _mac(signing_key, part)
    signature = _mac(signing_key, f"{_ALGORITHM}\n{time}\n{scope}\n{digest}").hex()
    return {
        "content-type": _FORM,
        "host": host,
        "x-amz-date": time,
        "authorization": (
            f"{_ALGORITHM} Credential={key.key_id}/{scope}, SignedHeaders={_SIGNED_HEADERS}, "
            f"Signature={signature}"
        ),
    }


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)
