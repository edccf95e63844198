"""Volumes that are attached to a node."""

from typing import Final

from infra.kubernetes.client import KubernetesClient

_ATTACHMENTS: Final = "/apis/storage.k8s.io/v1/volumeattachments"


def attachments_of(client: KubernetesClient, node: str) -> list[str]:
    """Return the names of the VolumeAttachments of a node; the API has no selector for that."""
    return sorted(
        attachment["metadata"]["name"]
        for attachment in client.list_all(_ATTACHMENTS)
        if attachment["spec"].get("nodeName") == node
    )


def forget_attachment(client: KubernetesClient, name: str) -> None:
    """Remove a VolumeAttachment without its driver: the server that holds it is going away."""
    path = f"{_ATTACHMENTS}/{name}"
    if client.find(path) is not None:
        client.patch(path, {"metadata": {"finalizers": None}})
        client.delete(path)
