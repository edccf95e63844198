"""The end of an install, or of one that was only begun: nothing of it is left."""

from __future__ import annotations

import asyncio

from temporalio import activity

from activities.control_planes import RemovalEvidence
from activities.install_steps import InstallSteps
from activities.progress import note_progress
from domain.errors import BulkheadError, Reason
from domain.owned_operation import InstallOperation
from infra.installs.identities import remains_of


class InstallRemovalActivities(InstallSteps):
    """Removes installs. Where the cluster goes as well, all that is on it goes with it."""

    @activity.defn
    async def remove_new_install(self, operation: InstallOperation) -> None:
        """Take back that an install was begun: its namespace, its rights, and its keys."""
        if not await self._cluster_goes(operation):
            async with self._reaching(operation):
                await self._remove_namespace(operation)
        await self._forget(operation)

    @activity.defn
    async def uninstall_release(self, operation: InstallOperation) -> None:
        """Have helm remove the release; its hooks get a bounded time, and are then left out."""
        if await self._cluster_goes(operation):
            return
        sight = await self._records.look(operation)
        async with self._deploying(operation), self._reaching(operation):
            try:
                await self._deployer.uninstall(
                    operation.control_plane,
                    operation.install_id,
                    seconds=self._settings.hook_seconds,
                    hooks=True,
                    good=sight.good,
                )
            except BulkheadError as error:
                if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
                    raise
                note_progress(f"A hook failed, and is left out: {error.message}")
                await self._uninstall_without_hooks(operation)

    @activity.defn
    async def remove_cluster_objects(self, operation: InstallOperation) -> None:
        """Remove every object of cluster scope that any render of the install had."""
        if await self._cluster_goes(operation):
            return
        async with self._reaching(operation):
            await self._settle_cluster_objects(operation, None)

    @activity.defn
    async def remove_namespace(self, operation: InstallOperation) -> None:
        """Remove the install's namespace with all that is in it, and wait until it is gone."""
        if await self._cluster_goes(operation):
            return
        async with self._reaching(operation):
            await self._remove_namespace(operation)

    @activity.defn
    async def revoke_install_credentials(self, operation: InstallOperation) -> None:
        """Remove the install's keys from OpenBao, and what names it as a consumer of secrets."""
        await self._forget(operation)

    @activity.defn
    async def verify_install_removed(self, operation: InstallOperation) -> RemovalEvidence:
        """Look for anything that is left of the install.

        Raises:
            BulkheadError: CONFLICT, worth another try, when something is left.
        """
        found: dict[str, list[str]] = {}
        if not await self._cluster_goes(operation):
            plane, install_id = operation.control_plane, operation.install_id
            async with self._reaching(operation):
                found = await self._deployer.clusters.ask(
                    plane, lambda client: remains_of(client, install_id)
                )
                references = await self._records.cluster_objects_of(operation)
                found["cluster_objects"] = await self._deployer.cluster_objects.left(
                    plane, install_id, references
                )
        found["keys"] = await asyncio.to_thread(
            self._vault.leftovers, operation.workspace_id, operation.install_id
        )
        left = {kind: ", ".join(things) for kind, things in found.items() if things}
        if left:
            listed = "; ".join(f"{kind}: {things}" for kind, things in left.items())
            raise BulkheadError(
                Reason.CONFLICT,
                f"Something of the install is left ({listed}); it is looked at again.",
                metadata=left,
                retryable=True,
            )
        return RemovalEvidence(facts=dict.fromkeys(found, "none"))
