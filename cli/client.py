"""HTTP to the API: authentication, bounded repetition, and pages."""

import random
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote

import httpx

from cli.configuration import Connection
from cli.errors import ApiError, CliError, ExitCode, UnreachableError
from cli.failures import (
    cause_of,
    is_lasting,
    is_transient,
    not_ours,
    refused,
    was_never_sent,
)

JsonObject = dict[str, Any]

# The API answers from one database read or write; a connection that takes longer than this to
# open will not open. Reads get the time that a cold, busy machine may need.
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0

# The longest long poll that the contract allows is 60 s; half of it survives the usual idle
# limits of proxies.
LONG_POLL_SECONDS = 30
_LONG_POLL_GRACE_SECONDS = 10.0

# A stream says every 15 s that it is still there; after two of them that did not come it is not.
_SILENCE_SECONDS = 40.0

PAGE_SIZE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often and how long a request is repeated.

    Attributes:
        attempts: how often it is sent at most.
        first_delay_seconds: the pause before the second attempt; it doubles from there.
        longest_delay_seconds: no pause is longer, and an API that asks for a longer one through
            `retry-after` gets no further attempt.
    """

    attempts: int = 5
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 20.0

    def delay_before(self, attempt: int, asked_seconds: float | None) -> float | None:
        """Return the pause before the attempt (2 is the first repetition); None: give up."""
        if attempt > self.attempts:
            return None
        if asked_seconds is not None:
            return asked_seconds if asked_seconds <= self.longest_delay_seconds else None
        doubled = self.first_delay_seconds * 2.0 ** (attempt - 2)
        # Jitter keeps many clients from coming back in step; it needs no secrecy.
        return min(doubled, self.longest_delay_seconds) * random.uniform(0.75, 1.25)  # noqa: S311


NO_RETRY = RetryPolicy(attempts=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    method: str
    path: str
    params: Mapping[str, Any] | None = None
    body: JsonObject | None = None
    headers: Mapping[str, str] | None = None
    timeout: httpx.Timeout | None = None
    repeatable: bool = True


class ApiClient:
    """The public API, as one principal, in one workspace.

    Args:
        connection: the address and the token.
        workspace_id: sent as `Akua-Context`; None where the token decides.
        retry: how requests are repeated that are safe to repeat.
        on_retry: told before each pause, with a sentence and the seconds.
        gives_workspace_up: asked when the API does not know the workspace, or not for this token;
            True: this and all later requests go without it.
        transport: replaces the network in tests of the retry rules.
        sleep: replaces the clock in tests of the retry rules.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        workspace_id: str | None = None,
        retry: RetryPolicy | None = None,
        on_retry: Callable[[str, float], None] | None = None,
        gives_workspace_up: Callable[[], bool] | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.connection = connection
        self.workspace_id = workspace_id
        self._retry = retry or RetryPolicy()
        self._on_retry = on_retry
        self._gives_workspace_up = gives_workspace_up
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=f"{connection.url}/v1",
            headers={"Accept": "application/json", "User-Agent": "bulkhead-cli"},
            timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            verify=_verification(connection),
            # A proxy of the environment never sees requests to this machine.
            trust_env=not connection.is_loopback,
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, *, retry: RetryPolicy | None = None, **params: object) -> JsonObject:
        """Read one resource."""
        return self._json(_Request(method="GET", path=path, params=params), retry=retry)

    def pages(self, path: str, **params: object) -> Iterator[JsonObject]:
        """Read a list, page by page, as the caller consumes it."""
        cursor: str | None = None
        while True:
            page = {**params, "limit": PAGE_SIZE} | ({"cursor": cursor} if cursor else {})
            answer = self._json(_Request(method="GET", path=path, params=page))
            yield from answer["data"]
            cursor = answer.get("next_cursor")
            if not answer.get("has_more") or not cursor:
                return

    def read_list(
        self, path: str, *, limit: int | None = None, **params: object
    ) -> list[JsonObject]:
        """Read a list, at most `limit` entries of it."""
        return list(islice(self.pages(path, **params), limit))

    def create(self, path: str, body: JsonObject, *, once: bool = True) -> JsonObject:
        """Create a resource.

        Args:
            path: the list that it becomes part of.
            body: what it shall be.
            once: send a key with it, so that it is created once even if an answer is lost on the
                way and the request is repeated; without, only an unsent request is repeated.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex} if once else {}
        request = _Request(method="POST", path=path, body=body, headers=headers, repeatable=once)
        return self._json(request)

    def change(
        self,
        method: str,
        path: str,
        *,
        etag: str | None = None,
        body: JsonObject | None = None,
        **params: object,
    ) -> JsonObject:
        """Change a resource that was read with this etag."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        if etag is not None:
            headers["If-Match"] = etag
        request = _Request(method=method, path=path, params=params, body=body, headers=headers)
        return self._json(request)

    def wait(self, operation_id: str, timeout_seconds: int = LONG_POLL_SECONDS) -> JsonObject:
        """Return the operation when it ends, or as it is when the time is over."""
        limits = httpx.Timeout(
            timeout_seconds + _LONG_POLL_GRACE_SECONDS, connect=CONNECT_TIMEOUT_SECONDS
        )
        request = _Request(
            method="POST",
            path=f"/operations/{segment(operation_id)}:wait",
            params={"timeout": timeout_seconds},
            timeout=limits,
        )
        return self._json(request, retry=NO_RETRY)

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], **params: object
    ) -> Iterator[Iterator[str]]:
        """Open a stream of lines, which come as the server sends them, for as long as it does.

        Raises:
            CliError: the API refuses, or the connection is lost, also in the middle.
        """
        limits = httpx.Timeout(_SILENCE_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        request = _Request(method="GET", path=path, params=params, headers=headers, timeout=limits)
        try:
            response = self._http.send(self._build(request), stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise refused(response, url=self.connection.url, path=request.path)
                yield response.iter_lines()
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._unreachable(request, error) from error

    def _json(self, request: _Request, retry: RetryPolicy | None = None) -> JsonObject:
        response = self._send(request, retry or self._retry)
        if not response.content:
            return {}
        try:
            value = response.json()
        except ValueError as error:
            raise not_ours(response, self.connection.url) from error
        if not isinstance(value, dict):
            raise not_ours(response, self.connection.url)
        return value

    def _send(self, request: _Request, retry: RetryPolicy) -> httpx.Response:
        attempt = 1
        while True:
            failure: CliError
            try:
                response = self._http.send(self._build(request))
            except httpx.TransportError as error:
                failure = self._unreachable(request, error)
                again = (request.repeatable or was_never_sent(error)) and not is_lasting(error)
            except KeyboardInterrupt as error:
                if request.method == "GET":
                    # Whoever reads knows what goes on without it: an operation that it follows.
                    raise
                raise _interrupted_change() from error
            else:
                if response.is_success:
                    return response
                failure = refused(response, url=self.connection.url, path=request.path)
                if self._goes_on_without_workspace(failure):
                    continue
                again = request.repeatable and is_transient(failure)
            attempt += 1
            asked = failure.retry_after_seconds if isinstance(failure, ApiError) else None
            delay = retry.delay_before(attempt, asked) if again else None
            if delay is None:
                raise failure
            if self._on_retry is not None:
                self._on_retry(failure.message, delay)
            self._sleep(delay)

    def _goes_on_without_workspace(self, failure: CliError) -> bool:
        """Give the workspace up if it is what was refused: nothing has been carried out then."""
        if self.workspace_id is None or self._gives_workspace_up is None:
            return False
        if not isinstance(failure, ApiError) or not failure.is_about_workspace:
            return False
        if not self._gives_workspace_up():
            return False
        self.workspace_id = None
        return True

    def _build(self, request: _Request) -> httpx.Request:
        headers = dict(request.headers or {})
        if self.connection.token is not None:
            headers["Authorization"] = f"Bearer {self.connection.token}"
        if self.workspace_id is not None:
            headers["Akua-Context"] = self.workspace_id
        params = {
            name: value for name, value in (request.params or {}).items() if value is not None
        }
        return self._http.build_request(
            request.method,
            request.path,
            params=params or None,
            json=request.body,
            headers=headers,
            timeout=request.timeout or httpx.USE_CLIENT_DEFAULT,
        )

    def _unreachable(self, request: _Request, error: httpx.TransportError) -> UnreachableError:
        maybe_done = request.method != "GET" and not was_never_sent(error)
        return UnreachableError(self.connection.url, cause_of(error), maybe_done=maybe_done)


def segment(text: str) -> str:
    """Return a user's text as one segment of a path."""
    return quote(text, safe="")


def _verification(connection: Connection) -> ssl.SSLContext | bool:
    if connection.ca_certificates is None:
        return True
    try:
        return ssl.create_default_context(cadata=connection.ca_certificates)
    except ssl.SSLError as error:
        message = "The certificate authorities that were given are not PEM certificates."
        raise CliError(message, ExitCode.USAGE) from error


def _interrupted_change() -> CliError:
    message = "The request may have been carried out; look before you repeat it."
    failure = CliError(message, ExitCode.INTERRUPTED, next_commands=("bulkhead operations list",))
    failure.title = "Interrupted"
    return failure
