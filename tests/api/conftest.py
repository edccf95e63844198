from collections.abc import AsyncIterator

import pytest

from tests.api.gate import Gate, running_gate
from tests.servers import Servers


@pytest.fixture(scope="session")
async def gate(servers: Servers) -> AsyncIterator[Gate]:
    async with running_gate(servers) as found:
        yield found
