"""How a worker of the tests deploys."""

from pathlib import Path

from infra.settings import HelmSettings
from infra.tools import ensure

# Hooks that never end, and releases that never get healthy, shall not take long here; but what does
# end must have the time on a machine on which much else runs.
HOOK_SECONDS = 10
HEALTHY_SECONDS = 60
DEGRADED_SECONDS = 2


def helm_settings(home: Path) -> HelmSettings:
    """Return the settings of helm, for servers that have their state in a directory."""
    return HelmSettings(
        program=ensure(["helm"])["helm"],
        cache_dir=home / "charts",
        hook_seconds=HOOK_SECONDS,
        healthy_seconds=HEALTHY_SECONDS,
        degraded_seconds=DEGRADED_SECONDS,
    )
