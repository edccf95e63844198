"""Quotas: what is counted for a workspace, and how much of it there may be by default."""

from dataclasses import dataclass
from enum import StrEnum


class QuotaMetric(StrEnum):
    """What is counted."""

    CLUSTERS = "compute/clusters"
    MACHINES = "compute/machines"
    INSTALLS = "delivery/installs"
    API_TOKENS = "access/api_tokens"
    REGIONS = "compute/regions"


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """How a metric is shown, and its limit where a workspace has none of its own."""

    display_name: str
    default_limit: int


# Every metric so far is an allocation, counted in pieces. The defaults keep one workspace from
# filling the platform by accident; an operator raises them by a row in `quotas`.
QUOTAS: dict[QuotaMetric, QuotaFacts] = {
    QuotaMetric.CLUSTERS: QuotaFacts("Clusters", 50),
    # Servers of one's own are not counted: they cost nobody but their owner.
    QuotaMetric.MACHINES: QuotaFacts("Machines in clouds", 200),
    QuotaMetric.INSTALLS: QuotaFacts("Installs", 2000),
    QuotaMetric.API_TOKENS: QuotaFacts("API tokens", 200),
    QuotaMetric.REGIONS: QuotaFacts("Regions", 200),
}
