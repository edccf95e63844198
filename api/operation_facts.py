"""What an operation is about and what it came to, in the contract's shapes of each type."""

from collections.abc import Callable
from typing import Any, Final

from domain.operation import OperationType, OwnerType
from infra.database.tables import OperationRow

# Their clusters own them, though each is about something else that the request names.
_OF_PARTS_OF_CLUSTERS: Final = frozenset(
    {OperationType.CLUSTER_WORKER_BOOTSTRAP_REVOKE, OperationType.MACHINE_POOL_CREATE}
)


def _metadata_of_cluster(row: OperationRow) -> dict[str, Any]:
    if row.type is OperationType.CLUSTER_CREATE:
        return {
            "workspace_id": row.workspace_id,
            "region_id": row.request["region_id"],
            "name": row.request["name"],
        }
    if row.type in _OF_PARTS_OF_CLUSTERS:
        return {"cluster_id": row.owner_id, **row.request}
    return {"cluster_id": row.owner_id}


def _metadata_of_machine(row: OperationRow) -> dict[str, Any]:
    ids = {"workspace_id": row.workspace_id, "machine_id": row.owner_id}
    if row.type is not OperationType.MACHINE_CREATE:
        ids["cluster_id"] = row.placement["cluster_id"]
    return {**ids, **row.request}


def _metadata_of_package(row: OperationRow) -> dict[str, Any]:
    return {
        "workspace_id": row.workspace_id,
        "package_id": row.owner_id,
        "name": row.request["name"],
        "idempotency_key": row.request["idempotency_key"],
    }


def _metadata_of_secret(row: OperationRow) -> dict[str, Any]:
    return {"workspace_id": row.workspace_id, "secret_id": row.owner_id}


def _metadata_of_install(row: OperationRow) -> dict[str, Any]:
    return {"workspace_id": row.workspace_id, "install_id": row.owner_id, **row.request}


_METADATA: Final[dict[OwnerType, Callable[[OperationRow], dict[str, Any]]]] = {
    OwnerType.CLUSTER: _metadata_of_cluster,
    OwnerType.INSTALL: _metadata_of_install,
    OwnerType.MACHINE: _metadata_of_machine,
    OwnerType.PACKAGE: _metadata_of_package,
    OwnerType.SECRET: _metadata_of_secret,
}


def metadata_of(row: OperationRow) -> dict[str, Any]:
    """Return what an operation is about, typed by what it does."""
    return {"type": row.type, **_METADATA[row.owner_type](row)}


def response_of(row: OperationRow) -> dict[str, Any] | None:
    """Return what an operation came to, with what the contract shows of an install's engine.

    Releases are its Argo applications here; an install's renders are its repository.
    """
    if row.response is None or row.owner_type is not OwnerType.INSTALL:
        return row.response
    more: dict[str, Any] = {}
    if row.type in {OperationType.INSTALL_RENDER, OperationType.INSTALL_RESTORE}:
        more = {"repository_id": row.owner_id}
    elif row.type is OperationType.INSTALL_DELETE:
        more = {"argo_app_deleted": True, "repo_purged": True}
    return {**row.response, **more}
