"""Brings what the platform keeps in a cluster to what it should be."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.kubernetes.client import DEPENDENCY, KubernetesClient
from infra.kubernetes.manifest import KeptObject

_logger = logging.getLogger(__name__)

# Requests at a time: each takes some milliseconds of an API server that has just started, most of
# which is etcd's disk.
_AT_A_TIME: Final = 8


def keep(
    client: KubernetesClient,
    objects: Sequence[KeptObject],
    *,
    forgive_refusals: bool,
    on_wait: Callable[[], None] = lambda: None,
) -> str | None:
    """Make or mend the objects, all at once; return what is missing in words, None when nothing.

    An object that exists and cannot be changed is not missing: a webhook of the customer that
    refuses everything must not make a cluster useless.

    Args:
        client: may do everything.
        objects: what shall be there.
        forgive_refusals: the cluster was in use already, so that such a webhook may also keep us
            from making what the customer removed, or what is new: it is said in the log.
        on_wait: called between the objects; what it raises ends the keeping once the requests
            under way have been answered.
    """
    missing: list[str] = []
    pool = ThreadPoolExecutor(_AT_A_TIME)
    try:
        for what in pool.map(
            lambda kept: _keep(client, kept, forgive_refusals=forgive_refusals), objects
        ):
            on_wait()
            if what is not None:
                missing.append(what)
    finally:
        pool.shutdown(cancel_futures=True)
    return missing[0] if missing else None


def _keep(client: KubernetesClient, kept: KeptObject, *, forgive_refusals: bool) -> str | None:
    try:
        if kept.customers_own and client.find(kept.path) is not None:
            return None
        client.apply(kept.path, kept.manifest)
    except BulkheadError as error:
        if not DEPENDENCY.items() <= error.metadata.items():
            raise
        was_answered = "status" in error.metadata
        if was_answered and (forgive_refusals or _exists(client, kept)):
            _logger.warning("%s %s is not as it should be: %s", kept.kind, kept.name, error)
            return None
        return f"the {kept.kind} {kept.name} ({error})"
    return None


def _exists(client: KubernetesClient, kept: KeptObject) -> bool:
    try:
        return client.find(kept.path) is not None
    except BulkheadError as error:
        if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
            return False
        raise
