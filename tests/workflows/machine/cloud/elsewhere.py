"""A customer of AWS or Google, for the scenarios that Hetzner's customers go through."""

import importlib

from domain.cloud import CREDENTIAL_KINDS, SNAPSHOT
from domain.secret import SecretValue
from domain.stack import StackKind
from infra.clouds.cloud import Cloud
from tests.clouds.case import LocalAccount, ProviderCase
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.fleet import Fleet
from tests.workflows.secret.scenarios import Rotating

# A server's own disk, under the server's tags where the provider has it so.
_DISK = "disk"


class _Key(Rotating):
    """A secret with a credential of another provider's."""


class CustomerElsewhere(Customer):
    """An account at a provider, empty at first."""

    def __init__(self, fleet: Fleet, hetzner: Hetzner, case: ProviderCase) -> None:
        super().__init__(fleet, hetzner)
        url = hetzner.others.serve(case.provider)
        self.account = LocalAccount(case=case, url=url, credential=case.credential(url))
        self.provider = case.provider
        self.place, self.size, self.image = case.place.name, case.instance_type, case.image
        programs = importlib.import_module(f"infra.stacks.programs.{case.provider}").RESOURCES
        self._network = set(programs[StackKind.NETWORK])
        self._server = set(programs[StackKind.MACHINE])
        self.declared = len(self._network) + len(self._server)
        self._secret = _Key(fleet.platform, fleet.owner)
        self._secret.kind = CREDENTIAL_KINDS[case.provider]

    @property
    def credential(self) -> SecretValue:
        return self.account.credential

    @property
    def cloud(self) -> Cloud:
        return self.account.cloud

    def new_credential(self) -> SecretValue:
        # The local clouds make no second one for an account; what was refused is accepted again.
        self.account.heal()
        return self.credential

    async def verify_whole(self) -> None:
        await self._verify(self._network | self._server)

    async def verify_asleep(self) -> None:
        await self._verify(self._network | {SNAPSHOT})

    async def _verify(self, wanted: set[str]) -> None:
        names = sorted(str(thing.resource) for thing in await self.has())
        assert names == sorted(wanted | (set(names) & {_DISK}))
