"""The activities of CreateCluster, by name, with nothing behind them."""

from collections.abc import Callable
from typing import Any

from temporalio import activity

from activities.records import ReachedActive
from domain.cluster import HostedControlPlane, Validity


def _no_op(name: str) -> Callable[..., Any]:
    async def nothing(_cluster: HostedControlPlane) -> None:
        return None

    return activity.defn(name=name)(nothing)


@activity.defn
async def ensure_credentials(_cluster: HostedControlPlane) -> Validity:
    """Answer as if there were certificates."""
    return Validity(renew_after=0, expire_at=0)


@activity.defn
async def record_active(_reached: ReachedActive) -> None:
    """Write nothing."""


NO_OPS = [
    _no_op("ensure_secret_space"),
    _no_op("ensure_authorities"),
    ensure_credentials,
    _no_op("start_components"),
    _no_op("wait_until_ready"),
    record_active,
]
