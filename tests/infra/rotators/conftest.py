from collections.abc import Iterator

import pytest

from tests.infra.rotators.tls_entrance import TlsEntrance, tls_entrance_to
from tests.servers import Servers


@pytest.fixture(scope="session")
def tls_entrance(servers: Servers) -> Iterator[TlsEntrance]:
    with tls_entrance_to(servers.database.port) as found:
        yield found
