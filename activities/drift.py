"""How a server and its network differ from what their stacks say: found, never mended."""

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from temporalio import activity

from domain.caller import system_caller
from domain.cloud import SERVER
from domain.compute import DriftRequest
from domain.stack import StackAction, StackState
from infra.clouds.same_account import check_same_account
from infra.clouds.threads import in_thread
from infra.database.records.drift import SCHEDULE
from infra.database.records.stack import program_of

if TYPE_CHECKING:
    from infra.clouds.accounts import Accounts
    from infra.clouds.cloud import Cloud
    from infra.database.records.compute import ComputeRecords
    from infra.database.records.drift import DriftRecords
    from infra.database.tables import StackRow
    from infra.stacks.stacks import Stacks

# A refresh reads each resource of a small stack once or twice. It is taken when nobody else has the
# stack.
_CALLS: Final = 10
_CALLS_TO_OPEN: Final = 1


class DriftActivities:
    """Runs the engine, where it is: on the queue of stacks."""

    def __init__(
        self,
        stacks: "Stacks",
        accounts: "Accounts",
        compute: "ComputeRecords",
        drift: "DriftRecords",
    ) -> None:
        self._stacks = stacks
        self._accounts = accounts
        self._compute = compute
        self._drift = drift

    @activity.defn
    async def detect_drift(self, request: DriftRequest) -> None:
        """Write the report; one that is there stays.

        Raises:
            BulkheadError: NOT_FOUND, FAILED_PRECONDITION; CREDENTIAL_REJECTED; ABORTED, worth
                another try, while an operation works on the stack.
        """
        stack = await self._drift.stack_of(request)
        if stack is None:
            return
        started_at = datetime.now(UTC)
        account = await self._compute.account_of_stack(stack)
        caller = request.caller or system_caller(request.workspace_id, SCHEDULE)
        server_id = str(stack.outputs.get("server_id", ""))
        async with self._accounts.opened(
            account, caller, operation_id=request.report_id, calls=_CALLS_TO_OPEN
        ) as cloud:
            opened = self._accounts.opened_as(cloud)
            await check_same_account(self._stacks.records, stack, account, cloud, opened)
            look = partial(cloud.describe, server_id)
            snapshot = await in_thread(account.secret_id, look, only_reads=True)
            delta = await self._differences(request, stack, cloud)
            network = await self._stacks.records.network_near(stack)
            if network is not None and network.state is StackState.PRESENT:
                # By the names of their resources the two are told apart.
                delta = {**await self._differences(request, network, cloud), **delta}
        if snapshot is None:
            # The engine's words for what is gone differ by provider.
            delta[SERVER] = {"wanted": "present", "found": "gone"}
        raw = {"provider": account.provider, "raw_attrs": dict(snapshot or {})}
        await self._drift.write(request, delta, raw, started_at)

    async def _differences(
        self, request: DriftRequest, stack: "StackRow", cloud: "Cloud"
    ) -> dict[str, Any]:
        """Return what differs, by logical name."""
        result = await self._stacks.run(
            StackAction.REFRESH,
            program_of(stack),
            cloud,
            operation_id=request.report_id,
            on_held=partial(self._accounts.take, cloud, _CALLS),
        )
        return dict(result.drift)
