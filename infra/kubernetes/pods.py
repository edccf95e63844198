"""Reads one install's pods and their logs from a cluster's API server, and may do nothing else.

For the web process: it streams what applications write, and keeps none of it.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of, install_reader_of
from infra.kubernetes.client import DEPENDENCY
from infra.kubernetes.logins import load_from_memory
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.openbao.signing import ApiOpenBao

_TIMEOUT_SECONDS: Final = 10.0

# Objects a page, and how many pods of one install are looked at.
_PAGE: Final = 500
MOST_PODS: Final = 2000

# Of one log line; what is longer comes in pieces.
_PIECE_BYTES: Final = 16 * 1024

_OK: Final = 200
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429


@dataclass(frozen=True, slots=True)
class PodPlace:
    """Where an install's pods are; `url` is the API server's."""

    workspace_id: str
    cluster_id: str
    install_id: str
    url: str


@dataclass(frozen=True, slots=True)
class Container:
    """One of a pod's containers.

    Attributes:
        name: its name.
        restarts: how often it was started again; with the name, it tells its runs apart.
        is_over: this run has ended.
        has_begun: there is a log of this run.
    """

    name: str
    restarts: int
    is_over: bool
    has_begun: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: its own containers first, then those that prepare it.

    Attributes:
        name: its name.
        uid: tells it from another one that had the name.
        containers: of it.
        phase: Kubernetes' word for how far it is, such as `Running`.
        is_ready: it serves what is asked of it.
        reason: Kubernetes' word for why it, or a container of it, does not run; None: it does.
    """

    name: str
    uid: str
    containers: tuple[Container, ...]
    phase: str
    is_ready: bool
    reason: str | None

    @property
    def container_names(self) -> list[str]:
        """The names of its containers."""
        return [container.name for container in self.containers]

    @property
    def restarts(self) -> int:
        """How often its containers were started again, over all of them."""
        return sum(container.restarts for container in self.containers)


@dataclass(frozen=True, slots=True)
class Piece:
    """A line of a log, or a part of one; `continues`: the piece before it is of the same line."""

    data: bytes
    continues: bool


class NoLogYetError(Exception):
    """The container has not begun, or its log is gone: there is nothing to be read now."""


class PodReader:
    """One login at one API server, good for 15 minutes of asking. Closed when it is left.

    Its methods raise `BulkheadError`: DEPENDENCY_UNAVAILABLE when the API server or OpenBao does
    not answer; FAILED_PRECONDITION while the install has no namespace.
    """

    def __init__(self, openbao: ApiOpenBao, place: PodPlace) -> None:
        self._openbao = openbao
        self._place = place
        space = install_namespace_of(place.install_id)
        self._path = f"/api/v1/namespaces/{space}/pods"
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        context = await asyncio.to_thread(self._log_in)
        # A stream holds its connection for as long as it lasts; whoever opens them bounds them.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=2)
        self._http = httpx.AsyncClient(
            base_url=self._place.url,
            verify=context,
            trust_env=False,
            limits=limits,
            timeout=_TIMEOUT_SECONDS,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def list_pods(self) -> list[Pod]:
        """Return the install's pods by their names, up to `MOST_PODS` of them."""
        found: list[Pod] = []
        page = {"limit": str(_PAGE)}
        while True:
            answer = await self._get(page)
            found += [_pod(item) for item in answer.get("items") or []]
            following = answer["metadata"].get("continue")
            if not following or len(found) >= MOST_PODS:
                return sorted(found, key=lambda pod: pod.name)
            page["continue"] = following

    @asynccontextmanager
    async def open_log(
        self, pod: Pod, container: Container, parameters: Mapping[str, str]
    ) -> AsyncGenerator[AsyncGenerator[Piece, None], None]:
        """Open a container's log; its lines come as bytes, long ones in pieces.

        Args:
            pod: whose log.
            container: and of which container.
            parameters: of the API: `follow`, `tailLines`, `sinceTime` and so on.

        Raises:
            NoLogYetError: there is nothing to be read now.
        """
        assert self._http is not None  # noqa: S101 - opened by whoever calls this
        path = f"{self._path}/{quote(pod.name, safe='')}/log"
        query = {"container": container.name, **parameters}
        # A container may write nothing for hours; whoever reads ends it after some minutes.
        timeout = httpx.Timeout(_TIMEOUT_SECONDS, read=None)
        try:
            request = self._http.build_request("GET", path, params=query, timeout=timeout)
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                response = await self._http.send(request, stream=True)
        except (httpx.TransportError, TimeoutError) as error:
            raise _unavailable(why=type(error).__name__) from error
        try:
            if response.status_code in {_BAD_REQUEST, _NOT_FOUND}:
                raise NoLogYetError
            _check(response)
            yield _lines(response)
        finally:
            await response.aclose()

    async def _get(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        assert self._http is not None  # noqa: S101 - as said
        try:
            response = await self._http.get(self._path, params=parameters)
        except httpx.TransportError as error:
            raise _unavailable(why=type(error).__name__) from error
        _check(response)
        answer: dict[str, Any] = response.json()
        return answer

    def _log_in(self) -> ssl.SSLContext:
        place = self._place
        cluster = (place.workspace_id, place.cluster_id)
        spec = LeafSpec(
            authority=Authority.KUBERNETES,
            common_name=install_reader_of(place.install_id),
            usages=("ClientAuth",),
        )
        key, certificate = make_leaf(
            lambda request, _usages: self._openbao.sign_install_reader(
                *cluster, request, place.install_id
            ),
            spec,
        )
        context = ssl.create_default_context(cadata=self._openbao.authority_of(*cluster))
        load_from_memory(context, certificate + key)
        return context


async def _lines(response: httpx.Response) -> AsyncGenerator[Piece, None]:
    """Cut what comes into lines. Nothing more is read than whoever iterates has asked for."""
    rest = bytearray()
    continues = False
    try:
        async for chunk in response.aiter_raw():
            rest += chunk
            while (end := rest.find(b"\n")) >= 0 or len(rest) >= _PIECE_BYTES:
                cut = end if 0 <= end <= _PIECE_BYTES else _PIECE_BYTES
                if cut or not continues:
                    yield Piece(bytes(rest[:cut]), continues)
                continues = cut != end
                del rest[: cut if continues else cut + 1]
    except httpx.TransportError as error:
        raise _unavailable(why=type(error).__name__) from error
    if rest:
        yield Piece(bytes(rest), continues)


def _pod(item: Mapping[str, Any]) -> Pod:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    seen = {
        each["name"]: each
        for field in ("containerStatuses", "initContainerStatuses")
        for each in status.get(field) or []
    }
    names = [
        each["name"] for field in ("containers", "initContainers") for each in spec.get(field) or []
    ]
    return Pod(
        name=item["metadata"]["name"],
        uid=item["metadata"]["uid"],
        containers=tuple(_container(name, seen.get(name) or {}) for name in names),
        phase=str(status.get("phase", "Unknown")),
        is_ready=any(
            each.get("type") == "Ready" and each.get("status") == "True"
            for each in status.get("conditions") or []
        ),
        reason=_reason(item, seen.values()),
    )


def _reason(item: Mapping[str, Any], statuses: Iterable[Mapping[str, Any]]) -> str | None:
    """Return in one word why a pod does not run: of a container, of the pod, of its placing."""
    if item["metadata"].get("deletionTimestamp"):
        return "Terminating"
    waiting = [(each.get("state") or {}).get("waiting") or {} for each in statuses]
    status = item.get("status") or {}
    placing = [
        each
        for each in status.get("conditions") or []
        if each.get("type") == "PodScheduled" and each.get("status") == "False"
    ]
    told = (each.get("reason") for each in (*waiting, status, *placing))
    return next((str(reason) for reason in told if reason), None)


def _container(name: str, status: Mapping[str, Any]) -> Container:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    # One that waits for its next run still has the log of the run before.
    is_over = "terminated" in state or ("running" not in state and "terminated" in last)
    return Container(
        name=name,
        restarts=int(status.get("restartCount", 0)),
        is_over=is_over,
        has_begun=is_over or "running" in state,
    )


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status == _OK:
        return
    if status == _FORBIDDEN:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The install has no namespace on its cluster, or somebody took the platform's rights "
            "there away. While it is being made, ask again in a moment; render it once more to "
            "bring them back.",
            metadata=dict(DEPENDENCY),
        )
    if status == _TOO_MANY:
        raise BulkheadError(
            Reason.RATE_LIMITED,
            "The cluster's API server asks to wait; ask again in a moment.",
            metadata=dict(DEPENDENCY),
        )
    raise _unavailable(why=f"HTTP {status}")


def _unavailable(*, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The cluster's API server does not show the install's pods ({why}); ask again.",
        metadata=dict(DEPENDENCY),
    )
