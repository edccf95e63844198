"""What every provider must do, at its local cloud: its client library, and the real engine."""

import importlib
import time
from functools import partial
from types import ModuleType

import pytest

from domain.cloud import SERVER, SNAPSHOT, Tag
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.stack import MachineShape, NetworkShape, StackAction, StackKind, StackProgram
from infra.clouds.removal import remove_all
from tests.clouds.case import LocalAccount, ProviderCase
from tests.clouds.engine import Engine, Run

_CANARY = "canary-in-user-data-4711"
_USER_DATA = f"#cloud-config\n# {_CANARY}\n"


class Programs:
    """A cluster's network and one machine in it, in one account."""

    def __init__(self, account: LocalAccount, engine: Engine) -> None:
        self.account = account
        self.engine = engine
        self.case = account.case
        self.workspace_id = new_id(Prefix.WORKSPACE)
        self.cluster_id = new_id(Prefix.CLUSTER)
        provider = self.case.provider
        self.module: ModuleType = importlib.import_module(f"infra.stacks.programs.{provider}")
        place = self.case.place
        shape = NetworkShape(place=place.name, region=place.region, cidr="10.77.0.0/24")
        self.network = self._program(StackKind.NETWORK, shape)
        self.machine = self._program(StackKind.MACHINE, shape)

    def up_network(self, **adopt: str) -> Run:
        result = self.run(StackAction.UP, _adopting(self.network, adopt))
        shape = MachineShape(
            place=self.case.place.name,
            region=self.case.place.region,
            instance_type=self.case.instance_type,
            image=self.case.image,
            network=result.outputs,
        )
        self.machine = self._program(StackKind.MACHINE, shape, self.machine.stack_id)
        return result

    def up_machine(self, **adopt: str) -> Run:
        return self.run(StackAction.UP, _adopting(self.machine, adopt), _USER_DATA)

    def run(self, action: StackAction, program: StackProgram, user_data: str = "") -> Run:
        environment = self.account.cloud.environment()
        return self.engine.run(action, program, environment, user_data)

    def destroy(self) -> None:
        self.run(StackAction.DESTROY, self.machine)
        self.run(StackAction.DESTROY, self.network)

    def found(self, program: StackProgram | None = None) -> dict[str, str]:
        """Return the ids of what the account has, by logical name; a second one is a failure."""
        stack_id = None if program is None else program.stack_id
        resources = self.account.cloud.inventory(self.workspace_id, stack_id)
        names = [str(resource.resource) for resource in resources]
        assert len(names) == len(set(names)), names
        return {str(resource.resource): resource.id for resource in resources}

    def declared(self, kind: StackKind) -> dict[str, str]:
        declared: dict[str, str] = self.module.RESOURCES[kind]
        return declared

    def _program(
        self, kind: StackKind, shape: NetworkShape | MachineShape, stack_id: str | None = None
    ) -> StackProgram:
        stack_id = stack_id or new_id(Prefix.STACK)
        return StackProgram(
            workspace_id=self.workspace_id,
            stack_id=stack_id,
            kind=kind,
            provider=self.case.provider,
            shape=shape,
            tags={
                Tag.WORKSPACE.value: self.workspace_id,
                Tag.CLUSTER.value: self.cluster_id,
                Tag.STACK.value: stack_id,
            },
        )


def _adopting(program: StackProgram, adopt: dict[str, str]) -> StackProgram:
    return StackProgram(
        **{name: getattr(program, name) for name in program.__slots__ if name != "adopt"},
        adopt=adopt,
    )


@pytest.fixture
def programs(account: LocalAccount, engine: Engine) -> Programs:
    return Programs(account, engine)


def test_an_image_is_looked_for_before_a_server_is_made_of_it(account: LocalAccount) -> None:
    case, cloud = account.case, account.cloud
    for architecture in ("amd64", "arm64"):
        cloud.check_image(case.image, case.place.name, architecture)
    for image in ("ubuntu-04.04", "ami-00000000000000000", "projects/x/global/images/none", "77"):
        with pytest.raises(BulkheadError) as refused:
            cloud.check_image(image, case.place.name, "amd64")
        assert refused.value.reason is Reason.INVALID_ARGUMENT, image


def test_every_call_of_the_client_library_is_counted(account: LocalAccount) -> None:
    # Google's library gets its token before.
    account.cloud.inventory(new_id(Prefix.WORKSPACE))
    # Strikes every call, and does nothing.
    account.disturb(kind="slow", delay_seconds=0)
    before = account.cloud.calls.made
    account.cloud.inventory(new_id(Prefix.WORKSPACE))
    (fault,) = account.faults()
    assert account.cloud.calls.made - before == fault["struck"] > 1


def test_an_account_is_told_from_another_where_the_provider_tells(account: LocalAccount) -> None:
    mine = account.cloud.account_id()
    other = account.opened(account.case.credential(account.url)).account_id()
    assert mine == account.opened(account.credential).account_id()
    assert (mine == other) is (mine is None)
    if mine is not None:
        weak = account.opened(account.case.weak_credential(account.url))
        assert weak.account_id() not in {None, mine}


def test_a_credential_that_may_do_all_is_accepted(account: LocalAccount) -> None:
    account.cloud.check_credential()


def test_a_credential_that_may_only_look_is_rejected_and_told_what_it_lacks(
    account: LocalAccount, case: ProviderCase
) -> None:
    weak = account.opened(case.weak_credential(account.url))
    with pytest.raises(BulkheadError) as caught:
        weak.check_credential()
    assert caught.value.reason is Reason.CREDENTIAL_REJECTED
    assert caught.value.metadata["missing"]


def test_a_credential_that_was_revoked_is_rejected_and_not_quoted(
    account: LocalAccount, case: ProviderCase
) -> None:
    case.revoke(account.url, account.credential)
    with pytest.raises(BulkheadError) as caught:
        account.cloud.check_credential()
    assert caught.value.reason is Reason.CREDENTIAL_REJECTED
    said = f"{caught.value.message} {caught.value.metadata}"
    assert not any(secret in said for secret in case.secrets_of(account.credential))


def test_places_and_sizes_are_told(account: LocalAccount, case: ProviderCase) -> None:
    assert account.cloud.place(case.place.name) == case.place
    sizes = {size.name: size for size in account.cloud.instance_types(case.place.name)}
    size = sizes[case.instance_type]
    assert size.available
    assert size.architecture == "amd64"
    assert size.cpu >= 1
    assert size.memory_mib >= 512
    with pytest.raises(BulkheadError) as caught:
        account.cloud.place("atlantis-1")
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("rate_limit", Reason.RATE_LIMITED),
        ("unavailable", Reason.DEPENDENCY_UNAVAILABLE),
        ("credential", Reason.CREDENTIAL_REJECTED),
    ],
)
def test_what_the_client_is_refused_for_has_a_reason(
    account: LocalAccount, case: ProviderCase, kind: str, reason: Reason
) -> None:
    account.disturb(kind=kind)
    with pytest.raises(BulkheadError) as caught:
        account.cloud.place(case.place.name)
    assert caught.value.reason is reason
    if reason is Reason.RATE_LIMITED:
        assert float(caught.value.metadata["retry_after_seconds"]) > 0


def test_programs_make_what_they_declare_once_and_leave_nothing(programs: Programs) -> None:
    programs.up_network()
    assert programs.found().keys() == programs.declared(StackKind.NETWORK).keys()
    outputs = programs.up_machine().outputs
    server = outputs["server_id"]
    resources = programs.account.cloud.inventory(programs.workspace_id, programs.machine.stack_id)
    kinds = {str(resource.resource): resource.kind for resource in resources}
    assert kinds == programs.declared(StackKind.MACHINE)
    assert outputs["private_ip"]
    assert programs.account.cloud.describe(server) is not None

    assert programs.up_machine().changes.keys() == {"same"}
    assert programs.run(StackAction.REFRESH, programs.machine).drift == {}

    stored = programs.engine.state(programs.machine) + programs.engine.state(programs.network)
    credential = programs.account.credential
    for secret in (_CANARY, *programs.case.secrets_of(credential)):
        assert secret not in stored

    programs.destroy()
    assert programs.found() == {}
    assert programs.account.cloud.describe(server) is None


@pytest.mark.full
def test_what_no_state_knows_is_adopted_and_not_made_again(
    programs: Programs, engine: Engine
) -> None:
    programs.up_network()
    programs.up_machine()
    network, machine = programs.found(programs.network), programs.found(programs.machine)
    engine.forget()

    programs.up_network(**network)
    programs.up_machine(**machine)

    assert programs.found() == network | machine
    assert programs.up_machine().changes.keys() == {"same"}
    programs.destroy()
    assert programs.found() == {}


@pytest.mark.full
def test_a_server_that_is_half_made_is_in_the_state_and_is_finished(
    programs: Programs, case: ProviderCase
) -> None:
    if not case.finishes_server:
        pytest.skip("a server is whole here as soon as it exists")
    programs.up_network()
    programs.account.disturb(kind="unavailable", call=case.finishes_server)
    with pytest.raises(BulkheadError) as caught:
        programs.up_machine()
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    half = programs.found(programs.machine)
    assert SERVER in half
    programs.account.heal()

    programs.up_machine()

    assert programs.found(programs.machine)[SERVER] == half[SERVER]
    programs.destroy()
    assert programs.found() == {}


@pytest.mark.full
def test_a_create_whose_answer_was_lost_is_found_by_its_tags_and_adopted(
    programs: Programs, case: ProviderCase
) -> None:
    programs.up_network()
    # Each of them: a provider whose requests have a token is asked again by its own client.
    programs.account.disturb(kind="lost_response", call=case.creates_server)
    with pytest.raises(BulkheadError) as caught:
        programs.up_machine()
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    programs.account.heal()
    lost = programs.found(programs.machine)
    assert SERVER in lost

    programs.up_machine(**lost)

    assert programs.found(programs.machine)[SERVER] == lost[SERVER]
    programs.destroy()
    assert programs.found() == {}


@pytest.mark.full
def test_a_server_that_was_removed_by_hand_is_seen_and_its_stack_goes_all_the_same(
    programs: Programs,
) -> None:
    cloud = programs.account.cloud
    programs.up_network()
    programs.up_machine()
    (server,) = (
        resource
        for resource in cloud.inventory(programs.workspace_id, programs.machine.stack_id)
        if resource.resource == SERVER
    )
    cloud.remove(server)
    assert SERVER in programs.run(StackAction.REFRESH, programs.machine).drift
    programs.destroy()
    assert programs.found() == {}


@pytest.mark.full
def test_a_storm_of_refusals_passes_and_nothing_is_made_twice(
    programs: Programs, case: ProviderCase
) -> None:
    programs.account.disturb(kind="rate_limit", call=case.creates_network, count=2)
    programs.up_network()
    assert programs.account.faults()[0]["struck"] == 2
    assert programs.found().keys() == programs.declared(StackKind.NETWORK).keys()
    programs.run(StackAction.DESTROY, programs.network)
    assert programs.found() == {}


@pytest.mark.full
def test_no_capacity_and_a_dead_credential_have_their_reasons(
    programs: Programs, case: ProviderCase
) -> None:
    programs.up_network()
    programs.account.disturb(kind="capacity", place=case.place.name)
    with pytest.raises(BulkheadError) as caught:
        programs.up_machine()
    assert caught.value.reason is Reason.CAPACITY_UNAVAILABLE
    assert SERVER not in programs.found(programs.machine)
    programs.account.heal()

    programs.account.disturb(kind="credential")
    with pytest.raises(BulkheadError) as caught:
        programs.run(StackAction.DESTROY, programs.network)
    assert caught.value.reason is Reason.CREDENTIAL_REJECTED
    programs.account.heal()
    programs.destroy()
    assert programs.found() == {}


@pytest.mark.full
def test_a_suspended_machine_is_a_snapshot_and_everything_goes_without_the_engine(
    programs: Programs, case: ProviderCase
) -> None:
    cloud = programs.account.cloud
    programs.up_network()
    server = programs.up_machine().outputs["server_id"]
    cloud.power_off(server)
    tags = {**programs.machine.tags, Tag.RESOURCE.value: SNAPSHOT}
    keep = partial(cloud.snapshot, server, "bh-kept", tags, case.place.name)
    with pytest.raises(BulkheadError) as missing:
        keep(begun=True)
    assert missing.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert keep() is None
    until = time.monotonic() + 60
    while (kept := keep(begun=True)) is None:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert kept == keep()
    assert SNAPSHOT in programs.found(programs.machine)

    assert remove_all(cloud, cloud.inventory(programs.workspace_id)) == []
    assert programs.found() == {}
    assert cloud.describe(server) is None
