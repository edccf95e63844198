from collections.abc import Iterator

import pytest

from tests.end_to_end.servers import Place, running_place
from tests.end_to_end.stack import Bulkhead, running_bulkhead


@pytest.fixture(scope="session")
def bulkhead() -> Iterator[Bulkhead]:
    """One whole stack for all tests of this folder."""
    with running_bulkhead() as found:
        yield found


@pytest.fixture(scope="module")
def place_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_place(tmp_path_factory.mktemp("place")) as found:
        yield found


@pytest.fixture
def place(place_of_module: Place) -> Iterator[Place]:
    """A cluster that has no machines, before and after."""
    try:
        yield place_of_module
    finally:
        place_of_module.clear()
