"""A worker bootstrap: a one-time, expiring right of one server to join one cluster."""

from datetime import datetime
from enum import StrEnum
from typing import Final

SHORTEST_TTL_SECONDS: Final = 60
LONGEST_TTL_SECONDS: Final = 86_400
DEFAULT_TTL_SECONDS: Final = 900


class BootstrapStatus(StrEnum):
    """The contract's published states; a used one is told by `used_at`."""

    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"


def status_of(
    *, revoked_at: datetime | None, expires_at: datetime, now: datetime
) -> BootstrapStatus:
    """Return what a bootstrap is at a moment: revoked before expired, whichever came first."""
    if revoked_at is not None:
        return BootstrapStatus.REVOKED
    return BootstrapStatus.EXPIRED if expires_at <= now else BootstrapStatus.ACTIVE
