"""One cluster for this folder's tests, each of which deploys into a namespace of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.names import install_namespace_of, install_user_of
from infra.helm.manifest import Split, split
from infra.helm.program import ClusterAccess, Helm
from infra.helm.release_chart import release_chart
from infra.helm.releases import Release
from infra.installs.identities import prepare_namespace
from infra.kubernetes.client import KubernetesClient, Object, administrator_of
from infra.kubernetes.discovery import Discovery
from infra.kubernetes.logins import user_login
from infra.tools import ensure
from tests.charts import archive
from tests.infra.control_planes.host import Host, running_host
from tests.servers import Servers


@dataclass(frozen=True)
class Place:
    """A new namespace, and who may deploy into it."""

    helm: Helm
    client: KubernetesClient
    release: Release
    access: ClusterAccess

    def path_of(self, plural: str, name: str = "", group: str = "") -> str:
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{root}/namespaces/{self.release.namespace}/{plural}/{name}".rstrip("/")

    def split(self, objects: list[Object]) -> Split:
        return split(objects, Discovery(self.client), self.release.namespace)

    async def render(self, chart: str, values: Object | None = None) -> list[Object]:
        """Return a chart's objects in the namespace."""
        found = await self.helm.template(archive(chart), values or {}, self.release, self.access)
        return self.split(found).namespaced

    async def deploy(self, objects: list[Object], *, seconds: float = 60) -> int:
        packed = release_chart("chart", "1.0.0", "1.0.0", objects)
        return await self.helm.upgrade(packed, self.release, self.access, seconds=seconds)

    async def statuses(self) -> list[str]:
        history = await self.helm.history(self.release, self.access)
        return [revision.status for revision in history]


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(ensure(("helm",))["helm"])


@pytest.fixture(scope="session")
def host(servers: Servers) -> Iterator[Host]:
    with running_host(servers, "helm") as found:
        yield found


@pytest.fixture(scope="session")
def cluster(host: Host) -> Iterator[HostedControlPlane]:
    with host.cluster() as found:
        yield found


@pytest.fixture
def place(helm: Helm, host: Host, cluster: HostedControlPlane) -> Iterator[Place]:
    layout = host.layout(cluster)
    url = f"https://{layout.local_api_host}:{layout.api_port}"
    install_id = new_id(Prefix.INSTALL)
    name = install_namespace_of(install_id)
    login = user_login(host.openbao, cluster, install_user_of(install_id))
    with administrator_of(host.openbao, cluster, url) as client:
        prepare_namespace(client, install_id)
        yield Place(helm, client, Release(name, name), ClusterAccess(url, login))
