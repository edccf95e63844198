"""Rotations, each on a secret of its own."""

from collections.abc import Iterator

import pytest

from tests.workflows.conftest import Injected
from tests.workflows.secret.scenarios import Rotating, RotatingToken


@pytest.fixture
def rotating(injected: Injected) -> Iterator[Rotating]:
    scenario = Rotating(injected.platform)
    yield scenario
    scenario.close()


@pytest.fixture
def token(injected: Injected) -> Iterator[RotatingToken]:
    scenario = RotatingToken(injected.platform)
    yield scenario
    scenario.close()
