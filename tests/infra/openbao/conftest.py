"""Both processes' clients on the session's server, and names of which nothing exists yet."""

from collections.abc import Iterator

import pytest

from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from infra.openbao.client import OpenBao
from infra.openbao.policies import API
from infra.openbao.session import OpenBaoSession
from infra.openbao.signing import ApiOpenBao
from tests.servers import Servers


@pytest.fixture
def openbao(servers: Servers) -> Iterator[OpenBao]:
    client = OpenBao(servers.openbao("worker"))
    yield client
    client.close()


@pytest.fixture
def api(servers: Servers) -> Iterator[ApiOpenBao]:
    client = ApiOpenBao(servers.openbao("api"))
    yield client
    client.close()


@pytest.fixture
def session(servers: Servers) -> Iterator[OpenBaoSession]:
    session = OpenBaoSession(servers.openbao("api"), API)
    yield session
    session.close()


@pytest.fixture
def cluster() -> HostedControlPlane:
    return HostedControlPlane(
        workspace_id=new_id(Prefix.WORKSPACE),
        cluster_id=new_id(Prefix.CLUSTER),
        host="local",
        slot=0,
    )
