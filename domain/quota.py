"""Quotas: what is counted for a workspace, and how much of it there may be by default."""

from dataclasses import dataclass
from enum import StrEnum


class QuotaMetric(StrEnum):
    """What is counted."""

    CLUSTERS = "compute/clusters"
    COMPUTE_CONFIGS = "compute/compute_configs"
    MACHINES = "compute/machines"
    INSTALLS = "delivery/installs"
    API_TOKENS = "access/api_tokens"
    REGIONS = "compute/regions"
    SECRETS = "secrets/secrets"


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """How a metric is shown, and its limit where a workspace has none of its own."""

    display_name: str
    default_limit: int


# Every metric so far is an allocation, counted in pieces. The defaults keep one workspace from
# filling the platform by accident; an operator raises them by a row in `quotas`.
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
}
