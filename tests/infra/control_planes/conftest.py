"""One host and two running clusters for the session; tests that change more make their own."""

from collections.abc import Iterator

import pytest

from domain.cluster import HostedControlPlane
from tests.infra.control_planes.host import Host, running_host
from tests.servers import Servers


@pytest.fixture(scope="session")
def host(servers: Servers) -> Iterator[Host]:
    with running_host(servers, "planes") as found:
        yield found


@pytest.fixture(scope="session")
def cluster(host: Host) -> Iterator[HostedControlPlane]:
    """A cluster that runs. Tests may use it, and leave it running."""
    with host.cluster() as found:
        yield found
