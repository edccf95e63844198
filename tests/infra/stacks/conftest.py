from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from domain.cloud import Provider
from infra.local_cloud.provider_programs.install import install
from infra.local_cloud.serving import served
from infra.openbao.client import OpenBao
from infra.settings import StackSettings
from infra.stacks.stacks import Stacks
from infra.tools import toolbox
from tests.clouds.case import LocalAccount, ProviderCase, all_cases
from tests.infra.stacks.laboratory import Laboratory, database_of, new_workspace
from tests.servers import Servers

# What a provider does takes so long: long enough to be killed in the middle.
ACTION_SECONDS = 1.5

CASES: dict[Provider, ProviderCase] = {case.provider: case for case in all_cases()}


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> StackSettings:
    home = tmp_path_factory.mktemp("pulumi")
    install(home)
    return StackSettings(
        directory=tmp_path_factory.mktemp("runs"),
        pulumi_home=home,
        programs_dir=toolbox.ensure(["pulumi"])["pulumi"].parent,
    )


@pytest.fixture(scope="session")
def slow_clouds() -> Iterator[Callable[[Provider], str]]:
    """Give what returns the URL of a provider's API, served from its first use on."""
    urls: dict[Provider, str] = {}
    with ExitStack() as stack:

        def url_of(provider: Provider) -> str:
            if provider not in urls:
                serving = served(provider, action_seconds=ACTION_SECONDS)
                urls[provider] = stack.enter_context(serving)
            return urls[provider]

        yield url_of


@pytest_asyncio.fixture
async def laboratory(
    request: pytest.FixtureRequest,
    servers: Servers,
    engine: StackSettings,
    slow_clouds: Callable[[Provider], str],
    tmp_path: Path,
) -> AsyncIterator[Laboratory]:
    """A workspace at Hetzner, or at the provider that a test is parametrized with."""
    case = CASES[getattr(request, "param", Provider.HCLOUD)]
    url = slow_clouds(case.provider)
    openbao, database = OpenBao(servers.openbao("worker")), database_of(servers)
    settings = engine.model_copy(update={"directory": tmp_path})
    stacks = Stacks(database, openbao, servers.database, settings)
    account = LocalAccount(case=case, url=url, credential=case.credential(url))
    yield Laboratory(
        servers=servers,
        database=database,
        openbao=openbao,
        stacks=stacks,
        settings=settings,
        account=account,
        workspace_id=await new_workspace(servers, openbao),
    )
    account.heal()
    await stacks.close()
    await database.close()
    openbao.close()
