"""Anything else: an HTTPS endpoint that does the steps, as docs/rotation-https.md says.

Values travel in bodies only. Nothing of an answer but its status and the fields of the contract is
used, and nothing of it is shown.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

import certifi
import httpx
from pydantic import AfterValidator, Field, StringConstraints

from domain.errors import BulkheadError, Reason
from domain.rotation import Rotation
from domain.secret import SecretValue, ValueEncoding
from infra.outbound import Outbound
from infra.rotators.fields import (
    Certificates,
    RotatorSettings,
    SecretId,
    read_settings,
    refuse_own_credential,
)
from infra.rotators.rotator import Values

_HTTPS_PORT: Final = 443

# For each of the host's addresses, TLS included.
_CONNECTS_WITHIN_SECONDS: Final = 5.0

# The largest value, every byte of it escaped in JSON, and some room for the fields around it.
_MAXIMUM_ANSWER_BYTES: Final = 512 * 1024

_SUCCESSES: Final = frozenset({200, 201, 202, 204})
_REFUSES_US: Final = frozenset({401, 403})
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500


class Step(StrEnum):
    """What the endpoint is asked to do."""

    CREATE = "create"
    SET = "set"
    TEST = "test"
    UNSET = "unset"
    RETIRE = "retire"


def _check_url(url: str) -> str:
    message = "give an address such as https://rotator.example.com/path, without user, ? and #"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(message) from None
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise ValueError(message)
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError(message)
    return url


class HttpsSettings(RotatorSettings):
    """Which endpoint.

    Attributes:
        url: of the endpoint; HTTPS, with nothing secret in it.
        ca: PEM roots of its certificate; without it the public ones count.
        auth_secret_id: a secret whose value is sent as a bearer token.
        timeout_seconds: for one whole request; connecting to an address takes 5 of them at most.
    """

    url: Annotated[
        str, StringConstraints(max_length=2048, pattern=r"^[!-~]+$"), AfterValidator(_check_url)
    ]
    ca: Certificates | None = None
    auth_secret_id: SecretId | None = None
    timeout_seconds: int = Field(default=10, ge=1, le=60)


class Https:
    """Asks an endpoint of the workspace.

    Args:
        outbound: decides which addresses may be reached.
        values: reads the token that the endpoint asks for.
    """

    def __init__(self, outbound: Outbound, values: Values) -> None:
        self._outbound = outbound
        self._values = values

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with their defaults."""
        checked = read_settings(HttpsSettings, settings)
        refuse_own_credential(secret_id, checked.auth_secret_id, "auth_secret_id")
        return checked.model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """See a checked address prove that it is the endpoint's; nothing is sent to it."""
        del current
        settings = read_settings(HttpsSettings, rotation.settings)
        parts = urlsplit(settings.url)
        host, port = parts.hostname or "", parts.port or _HTTPS_PORT
        context = await asyncio.to_thread(_trust, settings.ca)
        for address in await self._outbound.addresses_of(host, port):
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_connects_within(settings)):
                    _, writer = await asyncio.open_connection(
                        address, port, ssl=context, server_hostname=host
                    )
                    writer.close()
                return
        raise _unavailable()

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Have the endpoint make the new value."""
        answer = await self._ask(rotation, Step.CREATE, current=current)
        value = answer.get("value")
        try:
            encoding = ValueEncoding(answer.get("value_encoding", ValueEncoding.UTF8))
            created = SecretValue.of_text(value if isinstance(value, str) else "", encoding)
        except (ValueError, BulkheadError):
            raise _against_contract(
                rule="`create` is answered with `value`, a text of 1 to 65,536 bytes, and "
                "`value_encoding` where that is not `utf-8`"
            ) from None
        if created.data == current.data:
            raise _against_contract(
                rule="`create` is answered with a new value, not the current one"
            )
        return created

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Have the endpoint's target accept the new value."""
        await self._ask(rotation, Step.SET, pending=pending, current=current)

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Have the endpoint use the new value; only an explicit yes is one."""
        accepted = (await self._ask(rotation, Step.TEST, pending=pending)).get("accepted")
        if accepted is False:
            raise BulkheadError(
                Reason.CREDENTIAL_REJECTED,
                "The rotation's endpoint says that its target does not accept the new value.",
            )
        if accepted is not True:
            raise _against_contract(rule="`test` is answered with `accepted`, true or false")

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Have the endpoint take back what `create` and `set` did."""
        await self._ask(rotation, Step.UNSET, pending=pending, current=current)

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Have the endpoint's target refuse the old value."""
        del replacement
        await self._ask(rotation, Step.RETIRE, retired=retired)

    async def _ask(
        self, rotation: Rotation, step: Step, **values: SecretValue | None
    ) -> dict[str, Any]:
        settings = read_settings(HttpsSettings, rotation.settings)
        body = {
            "operation": step.value,
            "rotation_id": rotation.operation_id,
            "secret_id": rotation.secret_id,
            "workspace_id": rotation.workspace_id,
            **{name: _given(value) for name, value in values.items()},
        }
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "bulkhead-rotation",
            # The same for every attempt of the step.
            "idempotency-key": f"{rotation.operation_id}-{step}",
        }
        if settings.auth_secret_id is not None:
            token = await self._values.read(rotation, settings.auth_secret_id)
            headers["authorization"] = f"Bearer {_header_text(token)}"
        status, answer = await self._post(settings, headers, json.dumps(body).encode())
        _check_status(status)
        return _object_in(answer) if step in {Step.CREATE, Step.TEST} else {}

    async def _post(
        self, settings: HttpsSettings, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        parts = urlsplit(settings.url)
        host, port = parts.hostname or "", parts.port or _HTTPS_PORT
        last = _unavailable()
        for address in await self._outbound.addresses_of(host, port):
            try:
                async with asyncio.timeout(settings.timeout_seconds):
                    return await _post_to(address, parts, settings, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
            except (httpx.HTTPError, TimeoutError):
                break
        raise last


async def _post_to(
    address: str,
    parts: SplitResult,
    settings: HttpsSettings,
    headers: Mapping[str, str],
    body: bytes,
) -> tuple[int, bytes]:
    """Send a request to a checked address, as one to the host of the URL."""
    url = httpx.URL(settings.url).copy_with(host=address)
    context = await asyncio.to_thread(_trust, settings.ca)
    timeout = httpx.Timeout(settings.timeout_seconds, connect=_connects_within(settings))
    async with (
        httpx.AsyncClient(
            verify=context, trust_env=False, follow_redirects=False, timeout=timeout
        ) as client,
        client.stream(
            "POST",
            url,
            content=body,
            headers={**headers, "host": parts.netloc},
            # What is verified, and asked for, is the name and not the address.
            extensions={"sni_hostname": parts.hostname},
        ) as response,
    ):
        answer = bytearray()
        if response.status_code in _SUCCESSES:
            async for piece in response.aiter_raw():
                answer += piece
                if len(answer) > _MAXIMUM_ANSWER_BYTES:
                    raise _against_contract(
                        rule=f"an answer has at most {_MAXIMUM_ANSWER_BYTES} bytes"
                    )
        return response.status_code, bytes(answer)


def _connects_within(settings: HttpsSettings) -> float:
    return min(_CONNECTS_WITHIN_SECONDS, settings.timeout_seconds)


def _trust(ca: str | None) -> ssl.SSLContext:
    if ca is None:
        return ssl.create_default_context(cafile=certifi.where())
    return ssl.create_default_context(cadata=ca)


def _given(value: SecretValue | None) -> dict[str, str] | None:
    return None if value is None else {"value": value.text(), "value_encoding": value.encoding}


def _header_text(token: SecretValue) -> str:
    if all(ord("!") <= byte <= ord("~") for byte in token.data):
        return token.data.decode()
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        "The value of `auth_secret_id` cannot be sent as a bearer token: it holds blanks, line "
        "ends or characters beyond ASCII.",
    )


def _check_status(status: int) -> None:
    if status in _SUCCESSES:
        return
    if status in _REFUSES_US:
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            f"The rotation's endpoint does not accept our own token (HTTP {status}). Check the "
            "secret that `auth_secret_id` names.",
            metadata={"status": str(status)},
        )
    if status >= _SERVER_ERROR or status in _TRY_AGAIN:
        raise _unavailable()
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The rotation's endpoint refused the step (HTTP {status}); redirects are not followed. "
        "Its own log says why.",
        metadata={"status": str(status)},
    )


def _object_in(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _against_contract(rule="an answer is a JSON object in UTF-8, not compressed")
    return found


def _against_contract(*, rule: str) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The rotation's endpoint broke the contract: {rule}. See docs/rotation-https.md.",
    )


def _unavailable() -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The rotation's endpoint does not answer as it should: it is down or overloaded, took too "
        "long, or its certificate does not fit. The step is tried again.",
        metadata={"dependency": "rotation_endpoint"},
    )
