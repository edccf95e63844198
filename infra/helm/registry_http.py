"""HTTP to registries and repositories that a workspace named: checked addresses, bounds, logins."""

import asyncio
import base64
import ipaddress
import json
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import certifi
import httpx

from domain.errors import BulkheadError, Reason
from infra.helm.logins import BasicLogin, OAuthLogin, RegistryLogin, TokenLogin
from infra.outbound import Outbound
from infra.settings import HelmSettings

_CONNECTS_WITHIN_SECONDS: Final = 5.0
_ANSWERS_WITHIN_SECONDS: Final = 60.0
_MAXIMUM_REDIRECTS: Final = 5
_MAXIMUM_TOKEN_BYTES: Final = 256 * 1024

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REFUSES_LOGIN: Final = frozenset({401, 403})
_MISSING: Final = frozenset({404, 410})
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_UNAUTHORIZED: Final = 401
_OK: Final = 200
_SERVER_ERROR: Final = 500

_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80}
_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')

UNAVAILABLE: Final[Mapping[str, str]] = {"dependency": "registry"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, with its body whole."""

    status: int
    headers: httpx.Headers
    content: bytes


class RegistryHttp:
    """Asks one registry, or repository, for one piece of work.

    Args:
        settings: which registries may be asked in plain HTTP, and further roots to trust.
        outbound: decides which addresses may be reached.
        origin: `https://host[:port]` of the registry; the login is sent there and nowhere else,
            but for the token servers that the registry, or the login itself, names.
        login: None: it is asked as anybody.
    """

    def __init__(
        self, settings: HelmSettings, outbound: Outbound, origin: str, login: RegistryLogin | None
    ) -> None:
        self._settings = settings
        self._outbound = outbound
        self._origin = _origin_of(origin)
        self._login = login
        self._authorization: str | None = None
        self._context: ssl.SSLContext | None = None

    async def get(self, url: str, *, maximum_bytes: int, accept: str = "*/*") -> Answer:
        """Return what is at an address.

        Raises:
            BulkheadError: NOT_FOUND; CREDENTIAL_REJECTED when the login is not accepted, or one is
                needed; DEPENDENCY_UNAVAILABLE when the registry does not answer as it should;
                FAILED_PRECONDITION for a closed address or plain HTTP; INVALID_ARGUMENT for more
                bytes than wanted.
        """
        answer, by = await self._followed(url, maximum_bytes, accept)
        # Whoever the registry redirects to may ask for a login as well, and does not get this one.
        is_its_own = _origin_of(by) == self._origin
        if answer.status == _UNAUTHORIZED and is_its_own and await self._take_up(answer):
            answer, _ = await self._followed(url, maximum_bytes, accept)
        return _checked(answer, has_login=self._login is not None)

    async def _followed(self, url: str, maximum_bytes: int, accept: str) -> tuple[Answer, str]:
        """Ask, and go where redirects lead: registries keep their blobs elsewhere.

        Returns:
            The last answer, and the address that gave it.
        """
        for _ in range(_MAXIMUM_REDIRECTS + 1):
            headers = {"accept": accept, "accept-encoding": "identity"}
            if _origin_of(url) == self._origin:
                authorization = self._authorization or await self._first_authorization()
                if authorization is not None:
                    headers["authorization"] = authorization
            answer = await self._send("GET", url, headers, b"", maximum_bytes)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer, url
            url = str(httpx.URL(url).join(answer.headers["location"]))
        raise _unavailable(why="it redirects again and again")

    async def _first_authorization(self) -> str | None:
        match self._login:
            case BasicLogin():
                self._authorization = _basic(self._login.username, self._login.password)
            case TokenLogin():
                self._authorization = f"Bearer {self._login.token}"
            case OAuthLogin():
                self._authorization = f"Bearer {await self._client_token(self._login)}"
            case None:
                return None
        return self._authorization

    async def _client_token(self, login: OAuthLogin) -> str:
        headers = {
            "authorization": _basic(login.client_id, login.client_secret),
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        body = b"grant_type=client_credentials"
        answer = await self._send("POST", login.token_url, headers, body, _MAXIMUM_TOKEN_BYTES)
        if answer.status in {400, *_REFUSES_LOGIN}:
            raise _rejected(has_login=True)
        return _token_in(_checked(answer, has_login=True))

    async def _take_up(self, answer: Answer) -> bool:
        """Get the token that a registry's challenge asks for; tell whether there was one."""
        challenge = answer.headers.get("www-authenticate", "")
        if not challenge.lower().startswith("bearer ") or isinstance(
            self._login, TokenLogin | OAuthLogin
        ):
            return False
        parameters = dict(_PARAMETER.findall(challenge))
        realm = parameters.pop("realm", "")
        asked = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        headers = {"accept": "application/json"}
        if self._login is not None:
            headers["authorization"] = _basic(self._login.username, self._login.password)
        try:
            url = str(httpx.URL(realm).copy_merge_params(asked))
        except httpx.InvalidURL:
            raise _unavailable(why="it asks for a token at an address that is none") from None
        token = await self._send("GET", url, headers, b"", _MAXIMUM_TOKEN_BYTES)
        checked = _checked(token, has_login=self._login is not None)
        self._authorization = f"Bearer {_token_in(checked)}"
        return True

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, maximum_bytes: int
    ) -> Answer:
        host, port, is_plain = self._place_of(url)
        last = _unavailable(why="it cannot be reached")
        for address in await self._addresses_of(host, port, is_plain=is_plain):
            try:
                async with asyncio.timeout(_ANSWERS_WITHIN_SECONDS):
                    return await self._send_to(address, method, url, headers, body, maximum_bytes)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                last = _unavailable(why=_why(error))
            except (httpx.HTTPError, TimeoutError):
                raise _unavailable(why="it does not answer in time, or breaks off") from None
        raise last

    async def _send_to(
        self,
        address: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        maximum_bytes: int,
    ) -> Answer:
        """Send a request to a checked address, as one to the host of the URL."""
        parts = urlsplit(url)
        if self._context is None:
            self._context = await asyncio.to_thread(self._trust)
        timeout = httpx.Timeout(_ANSWERS_WITHIN_SECONDS, connect=_CONNECTS_WITHIN_SECONDS)
        async with (
            httpx.AsyncClient(verify=self._context, trust_env=False, timeout=timeout) as client,
            client.stream(
                method,
                httpx.URL(url).copy_with(host=address),
                content=body,
                headers={**headers, "host": parts.netloc, "user-agent": "bulkhead-helm"},
                # What is verified, and asked for, is the name and not the address.
                extensions={"sni_hostname": parts.hostname},
            ) as response,
        ):
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > maximum_bytes:
                    raise BulkheadError(
                        Reason.INVALID_ARGUMENT,
                        f"The registry sends more than the {maximum_bytes:,} bytes that this may "
                        "have.",
                    )
            return Answer(response.status_code, response.headers, bytes(content))

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=certifi.where())
        if self._settings.ca_file is not None:
            context.load_verify_locations(self._settings.ca_file)
        return context

    def _place_of(self, url: str) -> tuple[str, int, bool]:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise _unavailable(why="it leads to an address that is not HTTPS") from None
        if not parts.hostname or "@" in parts.netloc:
            raise _unavailable(why="it leads to an address that is none")
        is_listed = parts.netloc.lower() in self._settings.plain_http_registries
        return parts.hostname, port, parts.scheme == "http" and not is_listed

    async def _addresses_of(self, host: str, port: int, *, is_plain: bool) -> list[str]:
        if _is_address(host) and f"{host}:{port}" in self._settings.plain_http_registries:
            # The operator named this very address, as the embedded stack does its own registry's.
            return [host]
        try:
            addresses = await self._outbound.addresses_of(host, port)
        except BulkheadError as error:
            if error.reason is Reason.FAILED_PRECONDITION:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    "The registry has an address that is not public. The operator can allow "
                    "networks of their own (OUTBOUND__ALLOWED_NETWORKS).",
                ) from None
            raise _unavailable(why="its name cannot be resolved") from None
        if is_plain and not all(ipaddress.ip_address(one).is_loopback for one in addresses):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The registry is asked in plain HTTP, which is for this machine alone. Use HTTPS, "
                "or let the operator list it in HELM__PLAIN_HTTP_REGISTRIES.",
            )
        return addresses


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _origin_of(url: str) -> tuple[str, str, int]:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    return "", "", 0


def _basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def _token_in(answer: Answer) -> str:
    try:
        found = json.loads(answer.content)
        token = found.get("token") or found.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token.isprintable():
        raise _unavailable(why="its token server gives no token")
    return token


def _checked(answer: Answer, *, has_login: bool) -> Answer:
    status = answer.status
    if status == _OK:
        return answer
    if status in _REFUSES_LOGIN:
        raise _rejected(has_login=has_login)
    if status in _MISSING:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "The registry does not have it. Check the address, the chart's name and its version.",
        )
    if status >= _SERVER_ERROR or status in _TRY_AGAIN:
        raise _unavailable(why=f"it answers with HTTP {status}")
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The registry refuses the request (HTTP {status}). Check the address.",
        metadata={"status": str(status)},
    )


def _rejected(*, has_login: bool) -> BulkheadError:
    return BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        "The registry does not accept the login of its connection. Replace the connection."
        if has_login
        else "The registry wants a login. Make a registry connection for it.",
    )


def _why(error: httpx.TransportError) -> str:
    if "CERTIFICATE_VERIFY" in str(error):
        return "its certificate is not trusted"
    return "it cannot be reached"


def _unavailable(*, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The registry does not answer as it should: {why}. It is asked again.",
        metadata=dict(UNAVAILABLE),
    )
