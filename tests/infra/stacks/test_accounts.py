"""Which account a stack is in is known before anything is asked for there."""

import pytest

from domain.cloud import Provider
from domain.cloud_account import Account, OpenedAs
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.stack import StackProgram, StackState
from infra.clouds.cloud import Cloud
from infra.clouds.same_account import check_same_account
from infra.stacks.leases import hold
from tests.infra.stacks.laboratory import Laboratory


async def use(laboratory: Laboratory, program: StackProgram, cloud: Cloud, version_id: str) -> None:
    """Use an account for a stack, as an activity does."""
    row = await laboratory.row_of(program)
    account = Account(
        workspace_id=row.workspace_id,
        compute_config_id=row.compute_config_id,
        provider=row.provider,
        secret_id=row.secret_id,
    )
    opened = OpenedAs(version_id=version_id, account_id=cloud.account_id())
    await check_same_account(laboratory.records, row, account, cloud, opened)


async def begin_and_die(laboratory: Laboratory, program: StackProgram) -> None:
    """Do what comes before the engine's first call, and nothing more."""
    async with hold(laboratory.records, program.workspace_id, program.stack_id) as held:
        await laboratory.records.set_state(held.lease, StackState.CHANGING)
        operation_id = new_id(Prefix.OPERATION)
        await laboratory.records.intend(held.lease, operation_id, {"network": "network"})


@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_an_account_is_asked_for_by_no_credential_of_another_once_its_first_run_has_begun(
    laboratory: Laboratory,
) -> None:
    program = await laboratory.plan_network()
    first, second = new_id(Prefix.SECRET_VERSION), new_id(Prefix.SECRET_VERSION)
    await use(laboratory, program, laboratory.cloud, first)
    await begin_and_die(laboratory, program)
    account = laboratory.account
    other = account.opened(laboratory.case.credential(account.url))

    for _ in range(2):
        with pytest.raises(BulkheadError) as refused:
            await use(laboratory, program, other, second)
        assert refused.value.reason is Reason.CREDENTIAL_REJECTED
        assert refused.value.metadata["missing"] == "account"

    await use(laboratory, program, laboratory.cloud, first)
    row = await laboratory.row_of(program)
    assert (row.secret_version_id, row.account_id) == (first, laboratory.cloud.account_id())


@pytest.mark.parametrize("laboratory", [Provider.AWS, Provider.GCP], indirect=True)
async def test_a_provider_that_tells_its_accounts_needs_no_thing_to_be_found(
    laboratory: Laboratory,
) -> None:
    program = await laboratory.plan_network()
    first, second = new_id(Prefix.SECRET_VERSION), new_id(Prefix.SECRET_VERSION)
    await use(laboratory, program, laboratory.cloud, first)
    await begin_and_die(laboratory, program)

    await use(laboratory, program, laboratory.cloud, second)

    assert (await laboratory.row_of(program)).secret_version_id == second
