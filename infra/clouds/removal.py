"""Removes what nobody wants from an account, in whatever order its provider lets it go."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from domain.cloud import CloudResource
from domain.errors import BulkheadError, Reason
from infra.clouds.cloud import Cloud

# What uses another thing lets it go within seconds of its own end; then the sweep tries it again.
_ROUNDS: Final = 5
_PAUSE_SECONDS: Final = 2.0

# These end everything: the next thing would fail by the same.
_OF_THE_ACCOUNT: Final = frozenset({Reason.CREDENTIAL_REJECTED, Reason.RATE_LIMITED})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Left:
    """Something that could not be removed, and why."""

    resource: CloudResource
    error: str


def remove_all(cloud: Cloud, resources: Sequence[CloudResource]) -> list[Left]:
    """Remove resources, those in use after what uses them; return what is left, with the reason.

    Blocks: for a thread.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED or RATE_LIMITED, after which nothing else would succeed.
    """
    left = [Left(resource, "") for resource in resources]
    for number in range(_ROUNDS):
        if number and left:
            time.sleep(_PAUSE_SECONDS)
        before = left
        left = [failed for item in before if (failed := _remove(cloud, item.resource)) is not None]
        if not left:
            break
    return left


def _remove(cloud: Cloud, resource: CloudResource) -> Left | None:
    try:
        cloud.remove(resource)
    except BulkheadError as error:
        if error.reason in _OF_THE_ACCOUNT:
            raise
        log.warning(
            "could not remove a resource", kind=resource.kind, id=resource.id, reason=error.reason
        )
        return Left(resource, error.message)
    return None
