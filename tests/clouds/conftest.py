from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from domain.cloud import Provider
from infra.local_cloud.provider_programs.install import install
from infra.local_cloud.serving import served
from infra.tools import toolbox
from tests.clouds.case import LocalAccount, ProviderCase, all_cases
from tests.clouds.engine import Engine


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the engine over all providers but one to the slow matrices: a run takes seconds."""
    for item in items:
        if isinstance(item, pytest.Function) and "engine" in item.fixturenames:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            provider = getattr(params.get("case"), "provider", Provider.HCLOUD)
            if provider is not Provider.HCLOUD:
                item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def local_clouds() -> Iterator[Callable[[Provider], str]]:
    """Give what returns the URL of a provider's API, served from its first use on."""
    urls: dict[Provider, str] = {}
    with ExitStack() as stack:

        def url_of(provider: Provider) -> str:
            if provider not in urls:
                urls[provider] = stack.enter_context(served(provider))
            return urls[provider]

        yield url_of


@pytest.fixture(params=all_cases(), ids=lambda case: str(case.provider))
def case(request: pytest.FixtureRequest) -> ProviderCase:
    found: ProviderCase = request.param
    return found


@pytest.fixture
def account(case: ProviderCase, local_clouds: Callable[[Provider], str]) -> Iterator[LocalAccount]:
    url = local_clouds(case.provider)
    found = LocalAccount(case=case, url=url, credential=case.credential(url))
    yield found
    found.heal()


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pulumi")
    install(home)
    return home


@pytest.fixture
def engine(pulumi_home: Path, tmp_path: Path) -> Engine:
    states = tmp_path / "states"
    states.mkdir()
    return Engine(
        program=toolbox.ensure(["pulumi"])["pulumi"], pulumi_home=pulumi_home, directory=states
    )
