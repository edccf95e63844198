"""What templates may look up: the cluster as their login sees it, without what Secrets hold.

Helm's `lookup` hands whole objects to a template, which can print a Secret in any spelling: nobody
could find it again in rows and errors. So Helm asks a server on loopback instead of the cluster's,
one for each render, which reads and passes on. Of a Secret that the chart made it leaves the data:
that is how a chart keeps a password which it generated once; of every other one what is public.
"""

import asyncio
import base64
import binascii
import json
import re
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import structlog

from domain.errors import BulkheadError
from infra.helm.manifest import LAST_APPLIED
from infra.helm.releases import Release
from infra.kubernetes.client import KubernetesClient, Object

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# What the text of a chart has that looks something up; `tpl` runs texts that are made of others.
_CALLS: Final = (b"lookup", b"tpl")

# By which Helm knows what is a release's own; it takes over nothing else.
_RELEASE: Final = "meta.helm.sh/release-name"
_RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"

# Public by what they are; webhooks and ingresses name them in the open.
_CERTIFICATES: Final = re.compile(
    r"(-----BEGIN (CERTIFICATE|PUBLIC KEY)-----[A-Za-z0-9+/=\s]+-----END \2-----\s*)+"
)

# Marks what the platform wrote, whatever else is said of it.
_PLATFORM_LABELS: Final = "bulkhead.io/"

_FORBIDDEN: Final = 403
_JSON: Final = "application/json"
_DISCOVERY: Final = "apidiscovery.k8s.io"
_STOPS_WITHIN_SECONDS: Final = 0.05


def can_look_up(files: Mapping[str, bytes]) -> bool:
    """Tell whether a chart's templates can call `lookup`."""
    return any(call in content for content in files.values() for call in _CALLS)


def is_public(text: str) -> bool:
    """Tell whether what a Secret holds is nothing but certificates or public keys."""
    return _CERTIFICATES.fullmatch(text.strip()) is not None


@dataclass(frozen=True, slots=True)
class Lookups:
    """A server that templates ask.

    Attributes:
        url: of the server; nobody else knows its path.
        withheld: the names of Secrets that were looked up and shown without their data.
    """

    url: str
    withheld: set[str]


@asynccontextmanager
async def lookups(client: KubernetesClient, release: Release) -> AsyncIterator[Lookups]:
    """Serve what a client may read to the templates of a release.

    Args:
        client: asks as the install's user; it is asked from other threads.
        release: whose Secrets keep their data.
    """
    prefix = f"/{secrets.token_urlsafe(32)}"
    withheld: set[str] = set()

    class Handler(_Handler):
        place = _Place(prefix, client, release, withheld)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(_STOPS_WITHIN_SECONDS,), daemon=True)
        thread.start()
        try:
            yield Lookups(f"http://127.0.0.1:{server.server_port}{prefix}", withheld)
        finally:
            await asyncio.to_thread(server.shutdown)


def without_data(answer: Object, release: Release, withheld: set[str]) -> Object:
    """Return an answer of the API server without the data of Secrets that a chart did not make.

    Args:
        answer: an object, or a list of some.
        release: of the chart.
        withheld: gets the names of Secrets that lost theirs.
    """
    items = answer.get("items")
    if not isinstance(items, list):
        return _shown(answer, release, withheld)
    # What is in a list of one kind does not say it.
    about = {"apiVersion": "v1", "kind": "Secret"} if answer.get("kind") == "SecretList" else {}
    return {**answer, "items": [_shown({**about, **item}, release, withheld) for item in items]}


def _shown(obj: Object, release: Release, withheld: set[str]) -> Object:
    if obj.get("kind") != "Secret" or obj.get("apiVersion") != "v1" or _is_of(obj, release):
        return obj
    metadata = dict(obj["metadata"])
    annotations = metadata.pop("annotations", None) or {}
    metadata["annotations"] = {k: v for k, v in annotations.items() if k != LAST_APPLIED}
    withheld.add(str(metadata.get("name", "")))
    held = obj.get("data") or {}
    public = {name: encoded for name, encoded in held.items() if _is_public_datum(encoded)}
    kept: Object = {name: obj[name] for name in ("apiVersion", "kind", "type") if name in obj}
    return {**kept, "metadata": metadata, **({"data": public} if public else {})}


def _is_public_datum(encoded: object) -> bool:
    try:
        return is_public(base64.b64decode(str(encoded)).decode())
    except (binascii.Error, UnicodeDecodeError):
        return False


def _is_of(secret: Object, release: Release) -> bool:
    labels = secret["metadata"].get("labels") or {}
    annotations = secret["metadata"].get("annotations") or {}
    owner = (annotations.get(_RELEASE), annotations.get(_RELEASE_NAMESPACE))
    is_ours = any(name.startswith(_PLATFORM_LABELS) for name in labels)
    return owner == (release.name, release.namespace) and not is_ours


@dataclass(frozen=True, slots=True)
class _Place:
    prefix: str
    client: KubernetesClient
    release: Release
    withheld: set[str]


class _Server(ThreadingHTTPServer):
    # Helm keeps connections, and is gone before its server is.
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_arguments: Any) -> None:  # noqa: ANN401 - the base class's
        """Log where an answer failed; but for a Helm that was ended, and reads none any more."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            log.error("a lookup failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    place: _Place

    def do_GET(self) -> None:
        place = self.place
        path = self.path.removeprefix(place.prefix)
        if path == self.path:
            self.send_error(404)
            return
        wanted = self.headers.get("accept", "")
        # Nothing but JSON can be looked through, and of that no table.
        accept = wanted if _DISCOVERY in wanted else _JSON
        try:
            kind, content = place.client.fetch(path, accept)
            found = json.loads(content)
            self._answer(200, kind, without_data(found, place.release, place.withheld))
        except BulkheadError as error:
            status = int(error.metadata.get("status", 503))
            self._answer(status, _JSON, _status_of(error, status))
        except ValueError:
            self.send_error(502)

    def _answer(self, status: int, kind: str, answer: Object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:  # noqa: ANN401 - the base class's
        """Log nothing: Helm says what it could not read."""


def _status_of(error: BulkheadError, status: int) -> Object:
    reason = error.metadata.get("kubernetes_reason", "")
    # As the API server says it, which is how we tell it in Helm's words afterwards.
    refused = " This is forbidden." if status == _FORBIDDEN else ""
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": status,
        "reason": reason,
        "message": f"{error.message}{refused}",
    }
