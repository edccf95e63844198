"""Which target moves in which wave, and the digest to which an approval is bound."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.rollout_strategy import Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a target stands: its wave, and its turn over all."""

    wave: int
    position: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTarget:
    """What of one target an approval covers.

    Attributes:
        install_id: the install.
        wave: its wave.
        plan_digest: of what the version would change there; None: nothing was looked at.
    """

    install_id: str
    wave: int
    plan_digest: str | None


def sizes_of_waves(targets: int, strategy: Strategy) -> list[int]:
    """Return how many targets each wave has; none is empty, and together they are all."""
    canary = min(strategy.canary, targets)
    rest = targets - canary
    left = rest
    sizes = [canary]
    for share in strategy.waves:
        size = min(share.up_to(rest), left)
        sizes.append(size)
        left -= size
    sizes.append(left)
    return [size for size in sizes if size]


def assign_waves(install_ids: Sequence[str], strategy: Strategy) -> dict[str, Place]:
    """Place each install, in the order in which they are given."""
    places: dict[str, Place] = {}
    order = iter(enumerate(install_ids))
    for wave, size in enumerate(sizes_of_waves(len(install_ids), strategy)):
        for position, install_id in _take(order, size):
            places[install_id] = Place(wave=wave, position=position)
    return places


def spread_order(install_ids: Sequence[str], salt: str) -> list[str]:
    """Return the installs in an order that their ids do not tell.

    Ids sort by age: without this the oldest customers would be every rollout's canaries. The same
    salt gives the same order.
    """
    return sorted(install_ids, key=lambda each: hashlib.sha256(f"{salt}/{each}".encode()).digest())


def plan_digest_of(inputs: Mapping[str, Any], targets: Sequence[PlannedTarget]) -> str:
    """Return the digest of a rollout: its inputs, who moves in which wave, and each one's plan."""
    document = {
        "inputs": inputs,
        "targets": sorted([each.install_id, each.wave, each.plan_digest or ""] for each in targets),
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _take(order: Iterator[tuple[int, str]], size: int) -> Iterator[tuple[int, str]]:
    for _ in range(size):
        yield next(order)
