"""The real activities of one host, and the environment that they run in."""

from collections.abc import Iterator

import pytest

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from tests.infra.control_planes.host import Host, running_host
from tests.servers import Servers


@pytest.fixture(scope="session")
def host(servers: Servers) -> Iterator[Host]:
    with running_host(servers, "activities") as found:
        yield found


@pytest.fixture
def planes(host: Host) -> ControlPlaneActivities:
    return ControlPlaneActivities(host.backend, host.openbao)


@pytest.fixture
def spaces(host: Host) -> OpenBaoActivities:
    return OpenBaoActivities(host.openbao)
