"""Helm's own record of releases: Secrets in the release's namespace, one a revision."""

import base64
import binascii
import gzip
import json
import zlib
from dataclasses import dataclass
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.kubernetes.client import KubernetesClient, Object

DEPLOYED: Final = "deployed"
FAILED: Final = "failed"
_PENDING: Final = frozenset({"pending-install", "pending-upgrade", "pending-rollback"})

_INTERRUPTED: Final = "The deployment was interrupted."


@dataclass(frozen=True, slots=True)
class Release:
    """Which release is meant; ours has the name of its namespace."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a release; `status` is Helm's word, such as `deployed` or `failed`."""

    number: int
    status: str


def history(client: KubernetesClient, release: Release) -> list[Revision]:
    """Return the revisions that Helm remembers, the newest last."""
    return [_revision_of(record) for record in _records(client, release)]


def break_lock(client: KubernetesClient, release: Release) -> bool:
    """Mark what a killed Helm left half done as failed, as Helm itself does; tell whether it did.

    Helm refuses any further operation on such a release. Nothing of what it deployed is touched,
    and doing it again changes nothing. Only who holds the install's lock may call it, after the
    Helm that it replaces has ended.
    """
    broken = False
    for record in _records(client, release):
        if _revision_of(record).status in _PENDING:
            client.replace(_path_of(record, release), _marked_failed(record))
            broken = True
    return broken


def _records(client: KubernetesClient, release: Release) -> list[Object]:
    found = client.list_all(
        f"/api/v1/namespaces/{release.namespace}/secrets",
        labelSelector=f"owner=helm,name={release.name}",
    )
    return sorted(found, key=lambda record: _revision_of(record).number)


def _revision_of(record: Object) -> Revision:
    labels = record["metadata"]["labels"]
    return Revision(int(labels["version"]), labels["status"])


def _path_of(record: Object, release: Release) -> str:
    return f"/api/v1/namespaces/{release.namespace}/secrets/{record['metadata']['name']}"


def _marked_failed(record: Object) -> Object:
    try:
        packed = base64.b64decode(base64.b64decode(record["data"]["release"]))
        content = json.loads(gzip.decompress(packed))
        content["info"]["status"] = FAILED
        content["info"]["description"] = _INTERRUPTED
    except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error, binascii.Error):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Helm's record {record['metadata']['name']} cannot be read. Remove this Secret, and "
            "deploy once more.",
        ) from None
    packed = gzip.compress(json.dumps(content).encode(), compresslevel=9, mtime=0)
    labels = {**record["metadata"]["labels"], "status": FAILED}
    return {
        **record,
        "metadata": {**record["metadata"], "labels": labels},
        "data": {"release": base64.b64encode(base64.b64encode(packed)).decode()},
    }
