"""What the steps of installs have in common."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from temporalio import activity

from activities.holds import HeldError
from activities.progress import note_progress
from activities.records import worker_is_stopping
from domain.cluster import ClusterState, wait_for_api
from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of, is_undo
from infra.installs.finalizers import find_held, what_holds, what_to_do
from infra.installs.identities import forget_pods, remove_namespace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from domain.owned_operation import InstallOperation
    from infra.database.records.endings import OperationRecords
    from infra.database.records.install import InstallRecords
    from infra.database.tables import RenderRow
    from infra.installs.deployer import Deployer
    from infra.installs.renders import Deployed
    from infra.installs.secret_objects import SecretObjects
    from infra.openbao.install_vault import InstallVault
    from infra.settings import HelmSettings

POLL_SECONDS = 0.5

# Of one attempt to remove a namespace, of which there are as many as it takes. Pods get 30 s to
# end; after twice that a kubelet is gone, and its pods are forgotten.
_NAMESPACE_SECONDS = 60.0


class InstallSteps:
    """The installs on one host's clusters. What waits ends within a second of a cancel.

    Args:
        deployer: of the host's clusters.
        secrets: writes the Kubernetes Secrets of secrets to which values refer.
        vault: what OpenBao keeps of installs.
        records: rows of installs.
        operations: rows of operations.
        settings: how long hooks and the way to health may take.
    """

    def __init__(
        self,
        deployer: Deployer,
        secrets: SecretObjects,
        vault: InstallVault,
        records: InstallRecords,
        operations: OperationRecords,
        settings: HelmSettings,
    ) -> None:
        self._deployer = deployer
        self._secrets = secrets
        self._vault = vault
        self._records = records
        self._operations = operations
        self._settings = settings

    async def _settle_cluster_objects(
        self, operation: InstallOperation, good: RenderRow | None
    ) -> None:
        deployed: Deployed | None = (
            None if good is None else await self._deployer.renders.load(good)
        )
        references = await self._records.cluster_objects_of(operation)
        try:
            stays = await self._deployer.restore_cluster_objects(
                operation.control_plane, operation.install_id, deployed, references
            )
        except BulkheadError as error:
            if error.reason is Reason.CONFLICT:
                await self._tell_what_holds(operation, references)
            raise
        if stays:
            note_progress("; ".join(stays))
            await self._records.note_kept(operation, stays)

    async def _remove_namespace(self, operation: InstallOperation) -> None:
        plane, install_id = operation.control_plane, operation.install_id
        deadline = datetime.now(UTC) + timedelta(seconds=_NAMESPACE_SECONDS)
        await self._deployer.cluster_objects.withdraw_rights(plane, install_id)
        while True:
            if activity.is_worker_shutdown():
                raise worker_is_stopping()
            waits_for = await self._deployer.clusters.ask(
                plane, lambda client: remove_namespace(client, install_id)
            )
            if waits_for is None:
                return
            note_progress(f"The namespace waits for: {waits_for}")
            if datetime.now(UTC) > deadline:
                await self._deployer.clusters.ask(
                    plane, lambda client: forget_pods(client, install_id)
                )
                await self._tell_what_holds(operation, [])
                raise BulkheadError(
                    Reason.CONFLICT,
                    f"The namespace {install_namespace_of(install_id)} is not gone yet: "
                    f"{waits_for}.",
                    retryable=True,
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _tell_what_holds(
        self, operation: InstallOperation, references: Sequence[Mapping[str, str]]
    ) -> None:
        """Say on the operation which finalizers keep what shall go.

        Raises:
            BulkheadError: CONFLICT, worth another try, when there are some.
        """
        held = await self._deployer.clusters.ask(
            operation.control_plane,
            lambda client: find_held(client, operation.install_id, references),
        )
        if held:
            await self._operations.note_waiting(operation, what_holds(held))
            raise BulkheadError(Reason.CONFLICT, what_to_do(held), retryable=True) from None

    async def _uninstall_without_hooks(self, operation: InstallOperation) -> None:
        """Have helm remove the release; where it cannot, that goes with its namespace."""
        try:
            await self._deployer.uninstall(
                operation.control_plane,
                operation.install_id,
                seconds=self._settings.hook_seconds,
                hooks=False,
            )
        except BulkheadError as error:
            # Helm's own record of the release is the chart's to spoil, and no reason to stop here.
            if error.retryable and error.metadata.get("cause") != "unknown":
                raise
            note_progress(f"The release goes with its namespace: {error.message}")

    async def _forget(self, operation: InstallOperation) -> None:
        await asyncio.to_thread(
            self._vault.forget_install, operation.workspace_id, operation.install_id
        )
        await self._records.remove_references(operation)

    async def _cluster_goes(self, operation: InstallOperation) -> bool:
        """Tell whether all that is on the cluster goes with it, and need not be taken back."""
        state = await self._records.cluster_state_of(operation)
        return state in {None, ClusterState.DELETING}

    @contextlib.asynccontextmanager
    async def _deploying(self, operation: InstallOperation) -> AsyncIterator[None]:
        """Have one of the host's places for helm; a step begins when it has it.

        Raises:
            HeldError: an emergency stop came while it waited for one.
        """
        async with self._deployer.place(operation.workspace_id) as waited:
            info = activity.info()
            if waited and await self._operations.hold_back(
                operation,
                info.activity_id,
                takes_back=is_undo(info.activity_id, info.workflow_type or ""),
            ):
                raise HeldError(again=False)
            yield

    @contextlib.asynccontextmanager
    async def _reaching(self, operation: InstallOperation) -> AsyncIterator[None]:
        """Say on the operation while the cluster's API server does not answer."""
        try:
            yield
        except BulkheadError as error:
            if error.reason is Reason.DEPENDENCY_UNAVAILABLE and error.metadata.get(
                "dependency"
            ) in {"kubernetes", "helm"}:
                state = await self._records.cluster_state_of(operation)
                cluster_id = operation.control_plane.cluster_id
                awaited = wait_for_api(state, cluster_id, operation.operation_id)
                await self._operations.note_waiting(operation, awaited)
            raise
        if activity.info().attempt > 1:
            await self._operations.note_waiting(operation, None)
