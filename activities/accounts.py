"""Whether a credential is of the account in which things were made.

A person may store a token of another project under the same secret. The provider would then answer
that nothing of a stack is there, and that would pass for the proof that all of it is gone.
"""

from functools import partial
from typing import TYPE_CHECKING

from domain.errors import BulkheadError, Reason
from infra.clouds.accounts import in_thread

if TYPE_CHECKING:
    from infra.clouds.cloud import Cloud
    from infra.database.records.compute import Account
    from infra.database.records.stack import StackRecords
    from infra.database.tables import StackRow


async def check_same_account(
    records: "StackRecords", stack: "StackRow", account: "Account", cloud: "Cloud"
) -> None:
    """See that an account has something of what was made with an earlier version of its secret.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when it has nothing of it.
    """
    made = await records.unseen_with(stack, account.version)
    if not made:
        return
    found = await in_thread(partial(cloud.inventory, stack.workspace_id))
    if any(thing.stack_id in made for thing in found):
        await records.note_seen(stack, account.version)
        return
    raise BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        "The credential is of another account than the one in which the machines were made: nothing"
        f" of them is there. Add a version of the secret {stack.secret_id} with a credential of"
        " that account.",
        metadata={"secret_id": stack.secret_id, "missing": "account"},
    )
