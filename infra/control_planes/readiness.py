"""Looks at a control plane with the eyes of a client, and makes it one that can be used."""

import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import httpx

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError
from infra.control_planes.backend import OnWait
from infra.control_planes.layout import LOOPBACK, Layout
from infra.kubernetes.client import DEPENDENCY, administrator_of
from infra.kubernetes.keeping import keep
from infra.kubernetes.manifest import KeptObject
from infra.openbao.client import OpenBao

# A request that takes longer is asked again: an API server that starts drops some.
_TIMEOUT_SECONDS: Final = 3.0


class ReadinessClient:
    """Asks one API server, as an administrator whose key is in memory only.

    Args:
        openbao: signs the administrator's certificate.
        cluster: whose control plane it is.
        layout: where that is.
        objects: what the platform keeps in the cluster.
    """

    def __init__(
        self,
        openbao: OpenBao,
        cluster: HostedControlPlane,
        layout: Layout,
        objects: Sequence[KeptObject],
    ) -> None:
        self._api = administrator_of(
            openbao, cluster, layout.local_api_url, timeout_seconds=_TIMEOUT_SECONDS
        )
        # In clear: the context is only there because loading the usual roots takes 20 ms.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._loopback = httpx.Client(verify=context, trust_env=False, timeout=_TIMEOUT_SECONDS)
        self._tunnel_health = f"http://{LOOPBACK}:{layout.tunnel_status_port}/healthz"
        self._objects = objects
        self._objects_are_kept = False
        self._was_ready = layout.was_ready.exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._api.close()
        self._loopback.close()

    def what_is_missing(self, on_wait: OnWait) -> str | None:
        """Return what a client would still have to wait for, in words; None when it is ready.

        Ready means: the API server and the tunnel server say so, what the platform keeps in the
        cluster is there, the rights of its administrators above all, and workloads have the
        identity that the controller manager makes for them.

        Args:
            on_wait: called between requests, each of which may take `_TIMEOUT_SECONDS`.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """
        missing = "the API server to be ready"
        try:
            self._api.text("/readyz")
            missing = "what the platform keeps in the cluster"
            on_wait()
            if unkept := self._keep_objects(on_wait):
                return unkept
            if not self._is_tunnel_healthy():
                return "the tunnel server to be healthy"
            # The last to come, so that everything else is done while the controllers start.
            missing = "the default ServiceAccount"
            self._api.get("/api/v1/namespaces/default/serviceaccounts/default")
        except BulkheadError as error:
            if not DEPENDENCY.items() <= error.metadata.items():
                raise
            return f"{missing} ({error})"
        return None

    def _keep_objects(self, on_wait: OnWait) -> str | None:
        if self._objects_are_kept:
            return None
        missing = keep(self._api, self._objects, forgive_refusals=self._was_ready, on_wait=on_wait)
        self._objects_are_kept = missing is None
        return missing

    def _is_tunnel_healthy(self) -> bool:
        try:
            return self._loopback.get(self._tunnel_health).is_success
        except httpx.TransportError:
            return False


def served_certificate(host: str, port: int, timeout_seconds: float = 2.0) -> bytes | None:
    """Return the certificate, as PEM, that a server shows; None when there is no server."""
    try:
        return ssl.get_server_certificate((host, port), timeout=timeout_seconds).encode()
    except OSError:
        return None
