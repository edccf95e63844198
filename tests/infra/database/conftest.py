from collections.abc import Iterator

import pytest

from tests.infra.database.tenants import Tenants, tenants_of
from tests.servers import Servers


@pytest.fixture(scope="session")
def tenants(servers: Servers) -> Iterator[Tenants]:
    with tenants_of(servers) as found:
        yield found
