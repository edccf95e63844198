"""A cluster's control plane on the host whose worker runs this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import CancelledError

from activities.records import worker_is_stopping
from domain.cluster import HostedControlPlane, Validity
from domain.errors import BulkheadError, Reason

if TYPE_CHECKING:
    from infra.control_planes.backend import ControlPlaneBackend
    from infra.openbao.client import OpenBao


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovalEvidence:
    """What was looked at to say that nothing is left, and what was found there."""

    facts: dict[str, str]


class ControlPlaneActivities:
    """Asks one host's backend. What waits ends within a second of a cancel.

    Args:
        backend: of this host.
        openbao: the worker's client, for the look at what a removed cluster left.
    """

    def __init__(self, backend: ControlPlaneBackend, openbao: OpenBao) -> None:
        self._backend = backend
        self._openbao = openbao

    @activity.defn(name="ensure_credentials", no_thread_cancel_exception=True)
    def ensure_credentials(self, cluster: HostedControlPlane) -> Validity:
        """Write every file that the processes need; certificates that are due are replaced."""
        return self._backend.ensure_credentials(cluster)

    @activity.defn(name="start_components", no_thread_cancel_exception=True)
    def start_components(self, cluster: HostedControlPlane) -> None:
        """Have all components started, at once."""
        self._backend.start(cluster)

    @activity.defn(name="wait_until_ready", no_thread_cancel_exception=True)
    def wait_until_ready(self, cluster: HostedControlPlane) -> None:
        """Return when a client can use the cluster and its administrators have their rights."""
        self._backend.wait_until_ready(cluster, _end_if_cancelled)

    @activity.defn(name="restart_components", no_thread_cancel_exception=True)
    def restart_components(self, cluster: HostedControlPlane) -> None:
        """Have a control plane that exists run and answer, however far a stop of it came."""
        self._backend.start(cluster)
        self._backend.wait_until_ready(cluster, _end_if_cancelled)

    @activity.defn(name="stop_components", no_thread_cancel_exception=True)
    def stop_components(self, cluster: HostedControlPlane) -> None:
        """End all components and keep their data."""
        self._backend.stop(cluster, _end_if_cancelled)

    @activity.defn(name="remove_directory", no_thread_cancel_exception=True)
    def remove_directory(self, cluster: HostedControlPlane) -> None:
        """Remove everything that the cluster has on the host."""
        self._backend.remove(cluster)

    @activity.defn(name="renew_leaves", no_thread_cancel_exception=True)
    def renew_leaves(self, cluster: HostedControlPlane) -> Validity:
        """Replace the certificates that are due."""
        return self._backend.renew_leaves(cluster)

    @activity.defn(name="reload_components", no_thread_cancel_exception=True)
    def reload_components(self, cluster: HostedControlPlane) -> None:
        """Have every component use the certificates on disk, while the API answers."""
        self._backend.reload(cluster, _end_if_cancelled)

    @activity.defn(name="verify_removed", no_thread_cancel_exception=True)
    def verify_removed(self, cluster: HostedControlPlane) -> RemovalEvidence:
        """Look for anything that is left of the cluster, here and in OpenBao.

        Raises:
            BulkheadError: CONFLICT, worth another try, when something is left.
        """
        found = self._backend.find_remains(cluster)
        found["authorities"] = self._openbao.find_leftovers(cluster)
        left = {kind: ", ".join(things) for kind, things in found.items() if things}
        if left:
            listed = "; ".join(f"{kind}: {things}" for kind, things in left.items())
            raise BulkheadError(
                Reason.CONFLICT,
                f"Something of the cluster is left ({listed}). It is looked at again; end or "
                "remove by hand what does not go away.",
                metadata=left,
                retryable=True,
            )
        return RemovalEvidence(facts=dict.fromkeys(found, "none"))


def _end_if_cancelled() -> None:
    if activity.is_worker_shutdown():
        raise worker_is_stopping()
    if activity.is_cancelled():
        message = "The operation was cancelled, or this attempt of the step was given up."
        raise CancelledError(message)
