"""Sees to it that a rendering does not repeat the customer's secrets.

A template may look up the Kubernetes Secrets of the install's own namespace, and with that the ones
that the platform wrote there. What it prints is kept in rows, outside of Secrets as it is.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of
from infra.helm.manifest import named
from infra.installs.secret_objects import SECRET_LABEL
from infra.kubernetes.client import KubernetesClient, Object

# Shorter ones stand in objects by chance.
_SHORTEST: Final = 8


def carried_texts(client: KubernetesClient, install_id: str) -> dict[str, str]:
    """Return what the platform's Kubernetes Secrets of an install hold, plain and in base64.

    Returns:
        The name of the Kubernetes Secret, by each text.
    """
    space = install_namespace_of(install_id)
    found: dict[str, str] = {}
    for secret in client.list_all(
        f"/api/v1/namespaces/{space}/secrets", labelSelector=SECRET_LABEL
    ):
        for encoded in (secret.get("data") or {}).values():
            try:
                plain = base64.b64decode(encoded).decode(errors="replace")
            except binascii.Error:
                continue
            for text in (plain, plain.strip(), encoded):
                found[text] = secret["metadata"]["name"]
    return found


def refuse_echoes(manifest: Iterable[Object], carried: Mapping[str, str]) -> None:
    """Refuse a rendering that repeats what is carried.

    Args:
        manifest: the objects with digests of what is in Secrets.
        carried: from `carried_texts`.

    Raises:
        BulkheadError: INVALID_ARGUMENT, with the object and the name of the Kubernetes Secret.
    """
    texts = [text for text in carried if len(text) >= _SHORTEST]
    for found in manifest:
        said = "\n".join(_texts_in(found))
        for text in texts:
            if text in said:
                raise BulkheadError(
                    Reason.INVALID_ARGUMENT,
                    f"The chart looks up the Kubernetes Secret {carried[text]}, and its "
                    f"{named(found)} repeats what that holds, for everybody to read. Have it "
                    "refer to the Secret by its name.",
                )


def _texts_in(node: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for name, value in node.items():
            yield name
            yield from _texts_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts_in(value)
