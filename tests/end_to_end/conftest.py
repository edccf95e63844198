from collections.abc import Iterator

import pytest

from tests.end_to_end.stack import Bulkhead, running_bulkhead


@pytest.fixture(scope="session")
def bulkhead() -> Iterator[Bulkhead]:
    """One whole stack for all tests of this folder."""
    with running_bulkhead() as found:
        yield found
