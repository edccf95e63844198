"""Writes the secrets of installs as Kubernetes Secrets into their own namespaces.

A value goes from OpenBao to the API server in memory: it is in no row, error, log line or render,
and helm sees the object's name alone.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from domain.caller import Caller, system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.install import INSTALL_CONSUMER
from domain.names import install_namespace_of, install_user_of
from domain.owned_operation import InstallOperation
from domain.secret import SecretValue
from domain.secret_use import SecretUse, secret_uses_in, with_object_names
from infra.database.records.install_secret import InstallSecretRecords, Synced
from infra.installs.identities import MANAGED_BY, PLATFORM
from infra.kubernetes.client import KubernetesClient, Object
from infra.machines.clusters import HostClusters
from infra.secret_store.reader import Consumer, ReadValue, SecretReader

__all__ = ["SECRETS_MANAGER", "SecretObjects", "extract_references", "with_object_names"]

# Owns the fields that the platform writes for secrets, beside helm's.
SECRETS_MANAGER: Final = "bulkhead-secrets"

# On each Kubernetes Secret that is written here: which secret it carries.
SECRET_LABEL: Final = "bulkhead.io/secret"  # noqa: S105 - the name of a label

# Who reads when whoever asked for the operation has no business in this workspace.
_READER: Final = "install-secrets"


def extract_references(values: Mapping[str, Any]) -> tuple[SecretUse, ...]:
    """Return the secrets to which values refer, each once, in a fixed order.

    Raises:
        BulkheadError: INVALID_ARGUMENT, with its path, for a reference that is not well-formed.
    """
    return tuple(sorted({use for _, use in secret_uses_in(values)}))


class SecretObjects:
    """Keeps the Kubernetes Secrets of the installs on one host's clusters."""

    def __init__(
        self, records: InstallSecretRecords, reader: SecretReader, clusters: HostClusters
    ) -> None:
        self._records = records
        self._reader = reader
        self._clusters = clusters

    async def sync(self, operation: InstallOperation, uses: Sequence[SecretUse]) -> None:
        """Have a Kubernetes Secret with the value of each secret; others stay. Repeatable.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over; of the secret's own
                reason when its value cannot be read; as `KubernetesClient` when the API server
                refuses an object or does not answer.
        """
        # Known as a consumer before it has the value: from then on a rotation waits for it.
        await self._records.expect(operation, uses)
        if not uses:
            return
        found = [(use, await self._read(operation, use)) for use in uses]
        user = install_user_of(operation.install_id)

        def write(client: KubernetesClient) -> None:
            for use, read in found:
                _write(client, operation.install_id, use, read)

        await self._clusters.ask_as(operation.control_plane, user, write)
        synced = [Synced(use, read.version_id, read.number) for use, read in found]
        await self._records.record_synced(operation, synced)

    async def prune(self, operation: InstallOperation, uses: Sequence[SecretUse]) -> None:
        """Remove what was written for secrets that are not among `uses`. Repeatable.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over; as `KubernetesClient`.
        """
        wanted = {use.object_name for use in uses}
        collection = _collection(operation.install_id)

        def remove(client: KubernetesClient) -> None:
            for found in client.list_metadata(collection, labelSelector=SECRET_LABEL):
                name = found["metadata"]["name"]
                if name not in wanted:
                    client.delete(f"{collection}/{name}", uid=found["metadata"]["uid"])

        user = install_user_of(operation.install_id)
        await self._clusters.ask_as(operation.control_plane, user, remove)
        await self._records.forget_others(operation, uses)

    async def _read(self, operation: InstallOperation, use: SecretUse) -> ReadValue:
        try:
            return await self._reader.read(
                _reader_of(operation),
                use.secret_id,
                use.alias,
                operation_id=operation.operation_id,
                consumer=Consumer(type=INSTALL_CONSUMER, id=operation.install_id),
            )
        except BulkheadError as error:
            if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
                raise
            raise BulkheadError(
                error.reason,
                f"The values refer to the secret {use.secret_id} with the alias {use.alias}: "
                f"{error.message}",
                metadata={"secret_id": use.secret_id},
            ) from None


def _reader_of(operation: InstallOperation) -> Caller:
    caller = operation.caller
    if caller.workspace_id == operation.workspace_id:
        return caller
    return system_caller(operation.workspace_id, _READER)


def _collection(install_id: str) -> str:
    return f"/api/v1/namespaces/{install_namespace_of(install_id)}/secrets"


def _write(client: KubernetesClient, install_id: str, use: SecretUse, read: ReadValue) -> None:
    path = f"{_collection(install_id)}/{use.object_name}"
    try:
        client.apply(path, _manifest(use, read.value), manager=SECRETS_MANAGER)
    except BulkheadError as error:
        if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
            raise
        raise BulkheadError(
            error.reason,
            f"The cluster refused the Kubernetes Secret {use.object_name} of the secret "
            f"{use.secret_id}. Look at its admission webhooks and at the namespace's quotas.",
            retryable=error.retryable,
        ) from None


def _manifest(use: SecretUse, value: SecretValue) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": use.object_name,
            "labels": {MANAGED_BY: PLATFORM, SECRET_LABEL: opaque_part(use.secret_id)},
        },
        "type": "Opaque",
        "data": {use.key: base64.b64encode(value.data).decode()},
    }
