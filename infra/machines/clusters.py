"""The API servers of the clusters on this host, for code that must not wait for each other."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final, TypeVar

from domain.cluster import HostedControlPlane
from infra.control_planes.placement import HostPlacement
from infra.kubernetes.client import KubernetesClient, administrator_of
from infra.kubernetes.keeping import keep
from infra.kubernetes.logins import Login, administrator_login, user_login
from infra.kubernetes.objects import kept_objects
from infra.openbao.client import OpenBao
from infra.settings import ControlPlaneSettings

# One that does not answer by then is asked again with the next look.
_TIMEOUT_SECONDS: Final = 5.0

# The steps of one operation share a login; the next login that is asked for later forgets its key.
_LOGIN_SECONDS: Final = 30.0

# A cluster that hangs holds one or two threads, each for at most a few timeouts.
_THREADS: Final = 64

Result = TypeVar("Result")


class HostClusters:
    """Asks the API servers of this host's clusters, as their administrator. One a process."""

    def __init__(self, settings: ControlPlaneSettings, openbao: OpenBao) -> None:
        self._placement = HostPlacement(settings)
        self._coredns_image = settings.coredns_image
        self._openbao = openbao
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="clusters")
        self._lock = Lock()
        self._clients: dict[HostedControlPlane, KubernetesClient] = {}
        self._logins: dict[tuple[HostedControlPlane, str], tuple[float, Login]] = {}

    def url_of(self, cluster: HostedControlPlane) -> str:
        """Return where this host reaches a cluster's API server."""
        layout = self._placement.layout_of(cluster)
        return f"https://{layout.local_api_host}:{layout.api_port}"

    def addresses_of(self, cluster: HostedControlPlane) -> frozenset[str]:
        """Return under which addresses and names a cluster's control plane is reached."""
        layout = self._placement.layout_of(cluster)
        return frozenset({*layout.api_server_names, *layout.tunnel_server_names})

    async def login(self, cluster: HostedControlPlane) -> Login:
        """Make a login for a program that speaks to the API server itself."""
        return await self._run(lambda: administrator_login(self._openbao, cluster))

    async def ask(
        self, cluster: HostedControlPlane, work: Callable[[KubernetesClient], Result]
    ) -> Result:
        """Do something that blocks with a cluster's client, in a thread.

        A cancel waits until it is done: what was sent to an API server still has its effect, and
        whoever takes that back must come after it.
        """
        return await self._run(lambda: work(self._client_of(cluster)))

    async def login_as(self, cluster: HostedControlPlane, user: str) -> Login:
        """Make a login of an identity that has only the rights that bindings give it.

        It is valid for all but `_LOGIN_SECONDS` of `LOGIN_SECONDS`.
        """
        return await self._run(lambda: self._login_of(cluster, user))

    async def ask_as(
        self,
        cluster: HostedControlPlane,
        user: str,
        work: Callable[[KubernetesClient], Result],
    ) -> Result:
        """Do something that blocks under another identity than the administrator's; see `ask`."""

        def run() -> Result:
            client = KubernetesClient(
                self.url_of(cluster),
                lambda: self._login_of(cluster, user),
                timeout_seconds=_TIMEOUT_SECONDS,
            )
            with client:
                return work(client)

        return await self._run(run)

    async def mend(self, cluster: HostedControlPlane) -> str | None:
        """Bring what the platform keeps in a cluster to what it should be.

        Returns:
            What is missing, in words, where that cannot be done; None when nothing is.
        """
        objects = kept_objects(cluster.network_profile, self._coredns_image)
        return await self.ask(cluster, lambda client: keep(client, objects, forgive_refusals=True))

    def forget(self, cluster: HostedControlPlane) -> None:
        """Close the connections to a cluster that is gone, and forget its logins."""
        with self._lock:
            client = self._clients.pop(cluster, None)
            for key in [key for key in self._logins if key[0] == cluster]:
                del self._logins[key]
        if client is not None:
            client.close()

    def close(self) -> None:
        """Close every connection."""
        for cluster in list(self._clients):
            self.forget(cluster)
        self._threads.shutdown(wait=False)

    def _login_of(self, cluster: HostedControlPlane, user: str) -> Login:
        now = time.monotonic()
        with self._lock:
            for key, (made_at, _) in list(self._logins.items()):
                if now - made_at > _LOGIN_SECONDS:
                    del self._logins[key]
            known = self._logins.get((cluster, user))
        if known is not None:
            return known[1]
        login = user_login(self._openbao, cluster, user)
        with self._lock:
            self._logins[cluster, user] = (now, login)
        return login

    def _client_of(self, cluster: HostedControlPlane) -> KubernetesClient:
        with self._lock:
            client = self._clients.get(cluster)
            if client is None:
                client = self._clients[cluster] = administrator_of(
                    self._openbao,
                    cluster,
                    self.url_of(cluster),
                    timeout_seconds=_TIMEOUT_SECONDS,
                )
            return client

    async def _run(self, work: Callable[[], Result]) -> Result:
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise
