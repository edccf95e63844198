"""A cloud with two servers that run, for all tests that leave them as they found them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.local_cloud import Image, LocalCloud, LocalServer
from tests.local_servers import image_or_skip, temporary_cloud

GREETING = "#!/bin/sh\necho hello > /root/greeting\nsystemd-run python3 -m http.server 8080\n"


@pytest.fixture(scope="session")
def image() -> Image:
    return image_or_skip()


@pytest.fixture(scope="session")
def cloud(image: Image) -> Iterator[LocalCloud]:
    del image
    with temporary_cloud() as made:
        yield made


@pytest.fixture(scope="session")
def pair(cloud: LocalCloud, image: Image) -> tuple[LocalServer, LocalServer]:
    network = cloud.network("customer/place")
    made = [
        cloud.create(name, network=network, image=image, user_data=GREETING)
        for name in ("one", "two")
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(LocalServer.boot, made))
    for server in made:
        server.wait_until_booted()
        result = server.run("cloud-init status --wait")
        assert result.status == 0, result
    return made[0], made[1]
