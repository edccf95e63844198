"""How installs' live objects differ from what was rendered: found, and corrected where wanted."""

from typing import TYPE_CHECKING

from temporalio import activity

from domain.install_drift import InstallDriftRequest
from infra.installs.drift import find_drift

if TYPE_CHECKING:
    from domain.install_drift import ObjectDrift
    from infra.database.records.install_drift import InstallDriftRecords
    from infra.kubernetes.client import KubernetesClient
    from infra.machines.clusters import HostClusters
    from infra.openbao.client import OpenBao
    from infra.temporal.outbox import Outbox


class DueInstallDriftActivities:
    """What the clock asks, from anywhere."""

    def __init__(self, drift: "InstallDriftRecords") -> None:
        self._drift = drift

    @activity.defn
    async def due_install_drift(self) -> list[InstallDriftRequest]:
        """Return installs that were not compared for a while."""
        return await self._drift.due()


class InstallDriftActivities:
    """Asks the API servers of one host's clusters."""

    def __init__(
        self,
        clusters: "HostClusters",
        openbao: "OpenBao",
        drift: "InstallDriftRecords",
        outbox: "Outbox",
    ) -> None:
        self._clusters = clusters
        self._openbao = openbao
        self._drift = drift
        self._outbox = outbox

    @activity.defn
    async def detect_install_drift(self, request: InstallDriftRequest) -> int:
        """Write what differs, and begin a correction where the customer wants that.

        Returns:
            How many objects differ.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the cluster, OpenBao or the database does not
                answer.
        """
        subject = await self._drift.subject_of(request)
        if subject is None:
            return 0

        def compare(client: "KubernetesClient") -> "list[ObjectDrift]":
            key = self._openbao.installs.render_key(request.workspace_id, request.install_id)
            return find_drift(client, request.install_id, subject.manifest, key)

        found = await self._clusters.ask(subject.control_plane, compare)
        is_true = await self._drift.write(request, subject.render_id, found)
        if found and is_true:
            planned = await self._drift.plan_correction(request, subject.render_id)
            if planned is not None:
                await self._outbox.start(planned)
        return len(found)
