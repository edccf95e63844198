"""Whether a credential is of the account in which things were made.

A person may store a token of another project under the same secret. The provider would then answer
that nothing of a stack is there, and that would pass for the proof that all of it is gone.
"""

from collections.abc import Collection, Iterable
from functools import partial

from domain.cloud import CloudResource
from domain.errors import BulkheadError, Reason
from domain.secret import CURRENT
from infra.clouds.accounts import in_thread
from infra.clouds.cloud import Cloud
from infra.database.records.compute import Account
from infra.database.records.stack import StackRecords
from infra.database.tables import StackRow


async def check_same_account(
    records: StackRecords, stack: StackRow, account: Account, cloud: Cloud, version_id: str
) -> None:
    """See that an account has something of what was made with an earlier version of its secret.

    A version that the compute config names is believed: so a person says that the account of before
    is lost, with all that was in it.

    Args:
        records: of the worker.
        stack: which is in the account.
        account: the same, as rows know it.
        cloud: the same, opened.
        version_id: with which it was.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when it has nothing of it.
    """
    made = await records.unseen_with(stack, version_id)
    if not made or account.version != CURRENT:
        return
    found = await in_thread(partial(cloud.inventory, stack.workspace_id))
    check_some_of(made, found, stack.secret_id)
    await records.note_seen(stack, version_id)


def check_some_of(made: Collection[str], found: Iterable[CloudResource], secret_id: str) -> None:
    """See that something of certain stacks is in an account.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when nothing of them is.
    """
    if any(thing.stack_id in made for thing in found):
        return
    raise BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        "The credential is of another account than the one in which the machines were made: nothing"
        f" of them is there. Add a version of the secret {secret_id} with a credential of that"
        " account; or, if that account is lost, have the compute config name this version:"
        " `bulkhead compute-configs update CONFIG --secret-version N`.",
        metadata={"secret_id": secret_id, "missing": "account"},
    )
