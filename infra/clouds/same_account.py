"""Whether a credential is of the account in which things were made.

A person may store a token of another project under the same secret. The provider would then answer
that nothing of a stack is there, and that would pass for the proof that all of it is gone.

Where the provider tells which account it is, a stack is bound to that before anything is asked for.
Hetzner tells nothing: there a stack is bound to the version of the secret, and another version is
believed when something is found with it of what was made, or may have been, with the one before.
"""

from collections.abc import Collection, Iterable
from functools import partial

from domain.cloud import CloudResource
from domain.cloud_account import Account, OpenedAs
from domain.errors import BulkheadError, Reason
from domain.secret import CURRENT
from infra.clouds.cloud import Cloud
from infra.clouds.threads import in_thread
from infra.database.records.stack import StackRecords
from infra.database.tables import StackRow


async def check_same_account(
    records: StackRecords, stack: StackRow, account: Account, cloud: Cloud, opened: OpenedAs
) -> None:
    """See that an account is the one that a stack is in; one that was never used is in it from now.

    A version that the compute config names is believed: so a person says that the account of before
    is lost, with all that was in it.

    Args:
        records: of the worker.
        stack: which is in the account.
        account: the same, as rows know it.
        cloud: the same, opened.
        opened: as what it was.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when it is another one, or nothing tells that it is not.
    """
    if account.version == CURRENT:
        # What shares the credential of what is there belongs beside it.
        bound = await records.bound_like(stack, opened.version_id)
        if bound is not None:
            await _check(records, bound, cloud, opened)
            await records.note_seen(bound, opened)
    await records.note_seen(stack, opened)


async def _check(records: StackRecords, bound: StackRow, cloud: Cloud, opened: OpenedAs) -> None:
    if bound.account_id is not None and opened.account_id is not None:
        if bound.account_id != opened.account_id:
            raise other_account(bound.secret_id)
        return
    made = await records.unseen_with(bound, opened.version_id)
    if made:
        look = partial(cloud.inventory, bound.workspace_id)
        found = await in_thread(bound.secret_id, look, only_reads=True)
        check_some_of(made, found, bound.secret_id)


def check_some_of(made: Collection[str], found: Iterable[CloudResource], secret_id: str) -> None:
    """See that something of certain stacks is in an account.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when nothing of them is.
    """
    if not any(thing.stack_id in made for thing in found):
        raise other_account(secret_id)


def other_account(secret_id: str) -> BulkheadError:
    """Return the typed refusal of a credential of another account."""
    return BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        "The credential is of another account than the one in which the machines were made: nothing"
        f" of them is there. Add a version of the secret {secret_id} with a credential of that"
        " account; or, if that account is lost, have the compute config name this version:"
        " `bulkhead compute-configs update CONFIG --secret-version N`.",
        metadata={"secret_id": secret_id, "missing": "account"},
    )
