"""Asks one hosted cluster's API server, under a login whose key is in memory only."""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from infra.kubernetes.logins import (
    LOGIN_SECONDS,
    Login,
    administrator_login,
    load_from_memory,
)
from infra.openbao.client import OpenBao

# A Kubernetes object as JSON.
Object = dict[str, Any]

# Of a login's life, after which the next request gets a new one.
_RENEW_AFTER: Final = 2 / 3

_TIMEOUT_SECONDS: Final = 10.0

# Kept open at most, above the number of threads that ask one cluster at the same time: one that is
# made for a single request costs a handshake.
_CONNECTIONS: Final = 256

# Objects a page: a list of all pods of a large cluster in one answer would stall its API server.
_PAGE: Final = 500

# In the metadata of every error of the client's own; what its login fails of is OpenBao's.
DEPENDENCY: Final[Mapping[str, str]] = {"dependency": "kubernetes"}

# The fields that we own in objects which others write too.
FIELD_MANAGER: Final = "bulkhead"

_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_SENTENCE_CHARACTERS: Final = 300

# What refuses one of them, such as a webhook, has seen its data, and may repeat it.
_SECRETS: Final = re.compile(r"/api/v1/namespaces/[^/]+/secrets(/.*)?")

_SERVER_ERROR: Final = 500
_ERROR: Final = 400

_REASONS: Final[Mapping[int, Reason]] = {
    400: Reason.INVALID_ARGUMENT,
    401: Reason.PERMISSION_DENIED,
    403: Reason.PERMISSION_DENIED,
    404: Reason.NOT_FOUND,
    409: Reason.CONFLICT,
    422: Reason.INVALID_ARGUMENT,
    429: Reason.RATE_LIMITED,
}


class KubernetesClient:
    """Asks one API server. Safe to use from several threads, for as long as anybody likes.

    Every method raises `BulkheadError`: DEPENDENCY_UNAVAILABLE when the API server does not answer
    or cannot, RATE_LIMITED when it asks to wait, PERMISSION_DENIED when it or an admission webhook
    refuses, INVALID_ARGUMENT for what it does not take; `metadata.status` is the HTTP status.
    Nothing of what it says about a Secret is repeated.

    Args:
        url: where the API server is, such as `https://10.0.0.1:20000`.
        log_in: makes a login that is valid for `LOGIN_SECONDS`; called again when it grows old.
        timeout_seconds: how long one request may take.
    """

    def __init__(
        self, url: str, log_in: Callable[[], Login], *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        self._url = url
        self._log_in = log_in
        self._timeout_seconds = timeout_seconds
        self._lock = Lock()
        self._http: urllib3.HTTPSConnectionPool | None = None
        self._replaced: urllib3.HTTPSConnectionPool | None = None
        self._renew_at = 0.0
        self._requests = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, at the end of the requests that other threads are at."""
        with self._lock:
            self._closed = True
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        # A pool that is closed while it connects leaves that connection open.
        if self._requests:
            return
        for pool in (self._http, self._replaced):
            if pool is not None:
                pool.close()
        self._http = self._replaced = None

    def get(self, path: str) -> Object:
        """Return an object.

        Raises:
            BulkheadError: NOT_FOUND when there is none.
        """
        return self._ask("GET", path)

    def find(self, path: str) -> Object | None:
        """Return an object, None when there is none."""
        return none_if_missing(lambda: self._ask("GET", path))

    def list_all(self, path: str, **parameters: str) -> list[Object]:
        """Return all objects of a kind, page by page.

        Args:
            path: of the collection.
            parameters: `labelSelector`, `fieldSelector`.
        """
        return self._list(path, parameters, _JSON)

    def list_metadata(self, path: str, **parameters: str) -> list[Object]:
        """Return the metadata of all objects of a kind; nothing else of them is read.

        Args:
            path: of the collection.
            parameters: as for `list_all`.
        """
        return self._list(path, parameters, _METADATA_LIST)

    def _list(self, path: str, parameters: Mapping[str, str], accept: str) -> list[Object]:
        found: list[Object] = []
        page = {"limit": str(_PAGE), **parameters}
        while True:
            answer = self._ask("GET", path, parameters=page, accept=accept)
            found += answer.get("items") or []
            following = answer["metadata"].get("continue")
            if not following:
                return found
            page["continue"] = following

    def create(self, path: str, body: Object) -> Object:
        """Add an object to a collection, or ask a subresource, and return what came of it.

        Raises:
            BulkheadError: CONFLICT when it exists.
        """
        return self._ask("POST", path, body)

    def replace(self, path: str, body: Object) -> Object:
        """Replace an object, or a subresource of it, as a whole.

        Raises:
            BulkheadError: CONFLICT when it is not the version in `metadata.resourceVersion`,
                NOT_FOUND when there is none.
        """
        return self._ask("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """Merge some fields into an object (RFC 7386: null removes a field, lists are replaced).

        Raises:
            BulkheadError: CONFLICT, NOT_FOUND as for `replace`.
        """
        return self._ask("PATCH", path, body, content_type=_MERGE_PATCH)

    def apply(
        self, path: str, body: Object, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Object:
        """Have an object with these fields, whether it exists or not; other fields stay.

        Args:
            path: of the object.
            body: its fields.
            manager: who owns them from now on, also where another one did.
            dry_run: nothing is stored: the answer is what would be there.
        """
        parameters = {"fieldManager": manager, "force": "true"}
        if dry_run:
            parameters["dryRun"] = "All"
        return self._ask("PATCH", path, body, content_type=_APPLY_PATCH, parameters=parameters)

    def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: str | None = None,
    ) -> bool:
        """Ask for the end of an object; return whether there was one.

        Args:
            path: of the object.
            uid: remove this one only, and never its successor of the same name.
            grace_seconds: how long a pod may take to end, 0 forgets it; as it wishes by default.
            propagation: what becomes of its dependents: `Background`, `Foreground` or `Orphan`.

        Raises:
            BulkheadError: CONFLICT when the object has another uid.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        if propagation is not None:
            body["propagationPolicy"] = propagation
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        return none_if_missing(lambda: self._ask("DELETE", path, body)) is not None

    def text(self, path: str) -> str:
        """Return what is no object: `/readyz`, metrics, a log."""
        return self._send("GET", path, None, _JSON, {}, "*/*").data.decode(errors="replace")

    def fetch(self, path: str, accept: str) -> tuple[str, bytes]:
        """Return an answer as it came: what kind of content it is, and the content.

        Args:
            path: with its query.
            accept: the kinds of content that will do.
        """
        answer = self._send("GET", path, None, _JSON, {}, accept)
        return answer.headers.get("content-type", _JSON), answer.data

    def _ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = _JSON,
        parameters: Mapping[str, str] | None = None,
        accept: str = _JSON,
    ) -> Object:
        response = self._send(method, path, body, content_type, parameters or {}, accept)
        answer = _json_of(response)
        if answer is None:
            raise _unavailable(method, path, "it answers with something else than JSON")
        return answer

    def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        content_type: str,
        parameters: Mapping[str, str],
        accept: str,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"accept": accept}
        sent = None
        if body is not None:
            headers["content-type"] = content_type
            sent = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        url = path
        if parameters:
            url += ("&" if "?" in path else "?") + urlencode(parameters)
        try:
            with self._connected() as http:
                response = http.urlopen(
                    method, url, body=sent, headers=headers, retries=False, redirect=False
                )
        except HTTPError as error:
            raise _unavailable(method, path, type(error).__name__) from error
        if response.status >= _ERROR:
            raise _refused(method, path, response)
        return response

    @contextmanager
    def _connected(self) -> Iterator[urllib3.HTTPSConnectionPool]:
        with self._lock:
            http = self._current()
            self._requests += 1
        try:
            yield http
        finally:
            with self._lock:
                self._requests -= 1
                if self._closed:
                    self._close_if_idle()

    def _current(self) -> urllib3.HTTPSConnectionPool:
        if self._http is None or time.monotonic() > self._renew_at:
            successor = self._connect()
            # Another thread may be in the middle of a request with the one that is replaced
            # now; nobody is with the one before, minutes later.
            if self._replaced is not None:
                self._replaced.close()
            self._replaced, self._http = self._http, successor
        return self._http

    def _connect(self) -> urllib3.HTTPSConnectionPool:
        renew_at = time.monotonic() + LOGIN_SECONDS * _RENEW_AFTER
        login = self._log_in()
        context = ssl.create_default_context(cadata=login.authority)
        load_from_memory(context, login.certificate + login.key)
        self._renew_at = renew_at
        url = urllib3.util.parse_url(self._url)
        return urllib3.HTTPSConnectionPool(
            str(url.hostname),
            url.port,
            ssl_context=context,
            timeout=self._timeout_seconds,
            maxsize=_CONNECTIONS,
        )


def administrator_of(
    openbao: OpenBao,
    cluster: HostedControlPlane,
    url: str,
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> KubernetesClient:
    """Return a client that may do everything in a cluster. Nothing is asked before its first use.

    Args:
        openbao: signs its certificates.
        cluster: whose API server is asked.
        url: where that is.
        timeout_seconds: how long one request may take.
    """
    return KubernetesClient(
        url, lambda: administrator_login(openbao, cluster), timeout_seconds=timeout_seconds
    )


def none_if_missing(request: Callable[[], Object]) -> Object | None:
    """Return what a request returns, None when it ends in NOT_FOUND."""
    try:
        return request()
    except BulkheadError as error:
        if error.reason is Reason.NOT_FOUND:
            return None
        raise


def _json_of(response: urllib3.BaseHTTPResponse) -> Object | None:
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _refused(method: str, path: str, response: urllib3.BaseHTTPResponse) -> BulkheadError:
    status = response.status
    said = _json_of(response) or {}
    sentence = ""
    if not _SECRETS.fullmatch(path):
        sentence = str(said.get("message", ""))[:_SENTENCE_CHARACTERS]
    if status >= _SERVER_ERROR:
        return _unavailable(method, path, sentence or f"HTTP {status}", status)
    more = f": {sentence}" if sentence else "."
    return BulkheadError(
        _REASONS.get(status, Reason.INTERNAL),
        f"The cluster's API server refuses {method} {path} (HTTP {status}){more}",
        metadata={
            **DEPENDENCY,
            "status": str(status),
            "kubernetes_reason": str(said.get("reason", "")),
        },
    )


def _unavailable(method: str, path: str, why: str, status: int | None = None) -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The cluster's API server cannot answer {method} {path} ({why}); it is asked again.",
        metadata={**DEPENDENCY, **({} if status is None else {"status": str(status)})},
    )
