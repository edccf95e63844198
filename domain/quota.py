"""Quotas: what is counted for a workspace, and how much of it there may be by default."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class QuotaMetric(StrEnum):
    """What is counted."""

    CLUSTERS = "compute/clusters"
    COMPUTE_CONFIGS = "compute/compute_configs"
    MACHINES = "compute/machines"
    INSTALLS = "delivery/installs"
    API_TOKENS = "access/api_tokens"
    REGIONS = "compute/regions"
    SECRETS = "secrets/secrets"
    SECRET_ROTATIONS = "secrets/rotations"  # noqa: S105 - the name of a metric
    SECRET_VERSIONS = "secrets/versions"  # noqa: S105 - the same
    SECRET_REFERENCES = "secrets/references"  # noqa: S105 - the same


class QuotaType(StrEnum):
    """Whether things that exist are counted, or those that go on at this moment."""

    ALLOCATION = "allocation"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """How a metric is shown, and its limit where a workspace has none of its own."""

    display_name: str
    default_limit: int
    type: QuotaType = QuotaType.ALLOCATION


# Every metric is counted in pieces. The defaults keep one workspace from filling the platform by
# accident; an operator raises them by a row in `quotas`.
QUOTAS: dict[QuotaMetric, QuotaFacts] = {
    QuotaMetric.CLUSTERS: QuotaFacts("Clusters", 50),
    # Each leads to an account that the platform looks at every hour.
    QuotaMetric.COMPUTE_CONFIGS: QuotaFacts("Compute configs", 50),
    # Servers of one's own are not counted: they cost nobody but their owner.
    QuotaMetric.MACHINES: QuotaFacts("Machines in clouds", 200),
    QuotaMetric.INSTALLS: QuotaFacts("Installs", 2000),
    QuotaMetric.API_TOKENS: QuotaFacts("API tokens", 200),
    QuotaMetric.REGIONS: QuotaFacts("Regions", 200),
    # Also those that are deleted and can be restored.
    QuotaMetric.SECRETS: QuotaFacts("Secrets", 1000),
    # Those that wait for a person or for consumers ask nothing of anybody, and are not counted.
    QuotaMetric.SECRET_ROTATIONS: QuotaFacts(
        "Rotations under way", 100, type=QuotaType.CONCURRENCY
    ),
    # Values that are kept: a destroyed version is not counted, or rotations would use a secret up.
    # One a day fills this in 13 years, and only where every version is kept.
    QuotaMetric.SECRET_VERSIONS: QuotaFacts("Versions of a secret with a value", 5000),
    # What the platform makes and registers itself has quotas of its own.
    QuotaMetric.SECRET_REFERENCES: QuotaFacts("Consumers of a secret that were registered", 1000),
}

# Counted for one secret each; everything else for the whole workspace.
OF_A_SECRET: Final = frozenset({QuotaMetric.SECRET_VERSIONS, QuotaMetric.SECRET_REFERENCES})
