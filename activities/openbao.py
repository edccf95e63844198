"""A workspace's secret space and a cluster's authorities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity

from domain.cluster import HostedControlPlane

if TYPE_CHECKING:
    from infra.openbao.client import OpenBao


class OpenBaoActivities:
    """Asks OpenBao. A few short calls each, so none listens for a cancel.

    Args:
        openbao: the worker's client.
    """

    def __init__(self, openbao: OpenBao) -> None:
        self._openbao = openbao

    @activity.defn(name="ensure_secret_space", no_thread_cancel_exception=True)
    def ensure_secret_space(self, cluster: HostedControlPlane) -> None:
        """Make the namespace of the cluster's workspace, where its secrets and authorities are."""
        self._openbao.ensure_secret_space(cluster.workspace_id)

    @activity.defn(name="prepare_secret_space", no_thread_cancel_exception=True)
    def prepare_secret_space(self, workspace_id: str) -> None:
        """Make the workspace's namespace before anything asks for a cluster there."""
        self._openbao.ensure_secret_space(workspace_id)

    @activity.defn(name="ensure_authorities", no_thread_cancel_exception=True)
    def ensure_authorities(self, cluster: HostedControlPlane) -> None:
        """Make the cluster's roots, which never leave OpenBao, and the cluster's own keys."""
        self._openbao.ensure_authorities(cluster)

    @activity.defn(name="remove_authorities", no_thread_cancel_exception=True)
    def remove_authorities(self, cluster: HostedControlPlane) -> None:
        """Remove the cluster's roots and keys, whether all, some or none of them exist."""
        self._openbao.remove_authorities(cluster)
