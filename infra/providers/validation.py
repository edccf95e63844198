"""Asks a cloud provider whether it accepts a credential.

The addresses are the operator's settings, never a part of the value: a key file that names its own
token endpoint does not get to choose who is asked. Only a provider that says no makes a value
`invalid`; whatever else happens, nothing is known about it.
"""

import asyncio
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import certifi
import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from domain.secret import SecretKind, SecretValue
from infra.providers.access_keys import access_key_of
from infra.providers.signing import signed_headers
from infra.settings import ProviderSettings

_ANSWERS_WITHIN_SECONDS: Final = 10.0
_MAXIMUM_ANSWER_BYTES: Final = 64 * 1024

_OK: Final = 200
_BAD_REQUEST: Final = 400
_UNAUTHENTICATED: Final = 401
_FORBIDDEN: Final = 403

# A provider whose clock is this far from ours refuses signatures for that alone.
_CLOCK_TOLERANCE_SECONDS: Final = 120

_ASSERTION_LIFETIME_SECONDS: Final = 300
# A larger key would keep a processor busy for as long as whoever made it likes.
_MAXIMUM_KEY_BITS: Final = 4096
_MAXIMUM_KEY_TEXT: Final = 4096
_GCP_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform.read-only"
_AZURE_SCOPE: Final = "https://management.azure.com/.default"
_AWS_FORM: Final = b"Action=GetCallerIdentity&Version=2011-06-15"

_AWS_ERROR_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_AWS_REFUSALS: Final = frozenset({b"InvalidClientTokenId", b"SignatureDoesNotMatch"})
_AZURE_TENANT: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OAUTH_REFUSALS: Final = frozenset({"invalid_client", "invalid_grant", "unauthorized_client"})
# The tenant is not known: answered as an invalid request, which says nothing by itself.
_AZURE_UNKNOWN_TENANT: Final = frozenset({90002, 900023})

# The names that Azure's own tools write for the same three things.
_AZURE_NAMES: Final = {
    "tenant": ("tenant_id", "tenantId", "tenant"),
    "client": ("client_id", "clientId", "appId"),
    "secret": ("client_secret", "clientSecret", "password"),
}


class ValidationState(StrEnum):
    """What is known about a value, in the contract's words."""

    UNSPECIFIED = "unspecified"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Validation:
    """What came of a validation. `error` is a sentence of ours, without a part of the value."""

    state: ValidationState
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    clocks_agree: bool


class ProviderValidation:
    """One process's client of all providers.

    Args:
        settings: where each provider is.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        roots = certifi.where() if settings.ca_file is None else str(settings.ca_file)
        self._http = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=roots),
            trust_env=False,
            # A redirect would carry the credential to wherever it points.
            follow_redirects=False,
            timeout=_ANSWERS_WITHIN_SECONDS,
            headers={"accept-encoding": "identity", "user-agent": "bulkhead"},
        )
        self._kinds: dict[
            SecretKind, Callable[[SecretValue, Mapping[str, str]], Awaitable[Validation]]
        ] = {
            SecretKind.HCLOUD: self._hcloud,
            SecretKind.AWS: self._aws,
            SecretKind.GCP: self._gcp,
            SecretKind.AZURE: self._azure,
        }

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def validate(
        self, kind: SecretKind, value: SecretValue, attributes: Mapping[str, str]
    ) -> Validation:
        """Ask the kind's provider; a kind that none validates is `unspecified`. Raises nothing.

        Args:
            kind: of the secret.
            value: for `aws` the secret access key, or JSON with the whole key; for `gcp` a service
                account's key file; for `azure` JSON with `tenant_id`, `client_id` and
                `client_secret`; for `hcloud` the token.
            attributes: of the secret: `aws_access_key_id`.
        """
        ask = self._kinds.get(kind)
        if ask is None:
            return Validation(ValidationState.UNSPECIFIED)
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_SECONDS):
                return await ask(value, attributes)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            return _unknown("The provider cannot be reached, so that nothing is known.")

    async def _hcloud(self, value: SecretValue, attributes: Mapping[str, str]) -> Validation:
        del attributes
        if not _is_printable(value):
            return _invalid("The value holds characters that no API token of Hetzner Cloud has.")
        answer = await self._ask(
            "GET",
            f"{self._settings.hcloud_url}/locations?per_page=1",
            headers={"authorization": f"Bearer {value.data.decode()}"},
        )
        if answer.status == _UNAUTHENTICATED:
            return _invalid("Hetzner Cloud does not accept the token.")
        return _valid_or_unknown(answer)

    async def _aws(self, value: SecretValue, attributes: Mapping[str, str]) -> Validation:
        key = access_key_of(value, attributes)
        if key is None:
            if not value.data.startswith(b"{") and "aws_access_key_id" not in attributes:
                return _unknown(
                    "Without `aws_access_key_id` the key cannot be validated. A value may hold the "
                    "whole key: JSON with `access_key_id` and `secret_access_key`."
                )
            return _invalid("The value, with `aws_access_key_id`, is no access key of AWS.")
        headers = signed_headers(
            key,
            host=urlsplit(self._settings.aws_sts_url).netloc,
            region=self._settings.aws_sts_region,
            service="sts",
            form=_AWS_FORM,
            now=datetime.now(UTC),
        )
        answer = await self._ask(
            "POST", f"{self._settings.aws_sts_url}/", headers=headers, content=_AWS_FORM
        )
        code = _AWS_ERROR_CODE.search(answer.body)
        refused = answer.status == _FORBIDDEN and code is not None and code[1] in _AWS_REFUSALS
        if refused and answer.clocks_agree:
            return _invalid("AWS does not accept the access key.")
        return _valid_or_unknown(answer)

    async def _gcp(self, value: SecretValue, attributes: Mapping[str, str]) -> Validation:
        del attributes
        assertion = await asyncio.to_thread(
            _gcp_assertion, _object_in(value.data), self._settings.gcp_token_url
        )
        if assertion is None:
            return _invalid("The value is no key file (JSON) of a Google service account.")
        answer = await self._token(
            self._settings.gcp_token_url,
            grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer",
            assertion=assertion,
        )
        if _oauth_refuses(answer):
            return _invalid("Google Cloud does not accept the service account's key.")
        return _valid_or_unknown(answer)

    async def _azure(self, value: SecretValue, attributes: Mapping[str, str]) -> Validation:
        del attributes
        found = _object_in(value.data)
        tenant, client, secret = (_first_text(found, names) for names in _AZURE_NAMES.values())
        if not _AZURE_TENANT.fullmatch(tenant) or not client or not secret:
            return _invalid(
                "The value is no JSON object with `tenant_id` (a UUID), `client_id` and "
                "`client_secret`."
            )
        answer = await self._token(
            f"{self._settings.azure_login_url}/{tenant}/oauth2/v2.0/token",
            grant_type="client_credentials",
            client_id=client,
            client_secret=secret,
            scope=_AZURE_SCOPE,
        )
        codes = _object_in(answer.body).get("error_codes")
        known = not isinstance(codes, list) or _AZURE_UNKNOWN_TENANT.isdisjoint(
            code for code in codes if isinstance(code, int)
        )
        if _oauth_refuses(answer) or (answer.status == _BAD_REQUEST and not known):
            return _invalid("Azure does not accept the client's secret.")
        return _valid_or_unknown(answer)

    async def _token(self, url: str, **form: str) -> _Answer:
        return await self._ask(
            "POST",
            url,
            headers={"content-type": "application/x-www-form-urlencoded"},
            content=urlencode(form).encode(),
        )

    async def _ask(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> _Answer:
        async with self._http.stream(method, url, headers=headers, content=content) as response:
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _MAXIMUM_ANSWER_BYTES:
                    break
            return _Answer(
                response.status_code, bytes(body), _clocks_agree(response.headers.get("date"))
            )


def _gcp_assertion(found: Mapping[str, Any], audience: str) -> str | None:
    """Sign a short-lived assertion, None when the key file is none."""
    email, pem = found.get("client_email"), found.get("private_key")
    if found.get("type") != "service_account" or not (
        isinstance(email, str) and isinstance(pem, str) and len(pem) <= _MAXIMUM_KEY_TEXT
    ):
        return None
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size > _MAXIMUM_KEY_BITS:
        return None
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": email,
        "scope": _GCP_SCOPE,
        "aud": audience,
        "iat": now,
        "exp": now + _ASSERTION_LIFETIME_SECONDS,
    }
    header: dict[str, Any] = {"alg": "RS256", "typ": "JWT"}
    if isinstance(found.get("private_key_id"), str):
        header["kid"] = found["private_key_id"]
    return jwt.encode(header, claims, RSAKey.import_key(key))


def _object_in(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first_text(found: Mapping[str, Any], names: tuple[str, ...]) -> str:
    texts = (found.get(name) for name in names)
    return next((text for text in texts if isinstance(text, str) and text.isascii()), "")


def _is_printable(value: SecretValue) -> bool:
    return all(ord("!") <= byte <= ord("~") for byte in value.data)


def _clocks_agree(date: str | None) -> bool:
    """Tell whether an answer's `Date` is near our own time; one without is not held against us."""
    try:
        told = time.time() if date is None else parsedate_to_datetime(date).timestamp()
    except ValueError:
        return True
    return abs(told - time.time()) <= _CLOCK_TOLERANCE_SECONDS


def _oauth_refuses(answer: _Answer) -> bool:
    return (
        answer.status in {_BAD_REQUEST, _UNAUTHENTICATED}
        and answer.clocks_agree
        and _object_in(answer.body).get("error") in _OAUTH_REFUSALS
    )


def _valid_or_unknown(answer: _Answer) -> Validation:
    if answer.status == _OK:
        return Validation(ValidationState.VALID)
    if not answer.clocks_agree:
        return _unknown("The provider's clock and ours differ, so that nothing is known.")
    return _unknown(f"The provider answered with HTTP {answer.status}, so that nothing is known.")


def _invalid(error: str) -> Validation:
    return Validation(ValidationState.INVALID, error)


def _unknown(error: str) -> Validation:
    return Validation(ValidationState.UNSPECIFIED, error)
