"""A sandbox, and a platform that it can reach."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.node_setup.sandbox import Sandbox
from tests.infra.node_setup.small_platform import SmallPlatform, small_platform


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux: the script runs in a mount namespace")
    return Sandbox(tmp_path)


@pytest.fixture
def platform() -> Iterator[SmallPlatform]:
    with small_platform() as running:
        yield running
