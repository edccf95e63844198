"""What reading an install's pods needs: the install, its cluster's address, and that it is up."""

from api.fields import check_id, not_found
from api.install_places import check_active
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.database.queries.cluster import find_cluster, find_endpoint
from infra.database.queries.install import find_install
from infra.kubernetes.pods import PodPlace


async def readable_install(scope: RequestScope, install_id: str) -> PodPlace:
    """Return where the pods of an install are.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION while its cluster cannot be asked.
    """
    install = await find_install(scope.session, check_id(Prefix.INSTALL, install_id))
    if install is None:
        raise not_found(Prefix.INSTALL)
    cluster = await find_cluster(scope.session, install.cluster_id)
    assert cluster is not None  # noqa: S101 - a foreign key holds it
    check_active(cluster)
    endpoint = await find_endpoint(scope.session, cluster.id)
    if endpoint is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, "The cluster has no control plane; it is being deleted."
        )
    return PodPlace(
        workspace_id=install.workspace_id,
        cluster_id=cluster.id,
        install_id=install.id,
        url=endpoint.url,
    )
