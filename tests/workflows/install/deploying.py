"""How a worker of the tests deploys."""

from pathlib import Path

from infra.settings import HelmSettings
from infra.tools import ensure
from tests.api.process import free_port

# Where this process's worker may find a registry, if a test runs one.
REGISTRY_PORT = free_port()

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
        plain_http_registries=[f"127.0.0.1:{REGISTRY_PORT}"],
        hook_seconds=HOOK_SECONDS,
        healthy_seconds=HEALTHY_SECONDS,
        degraded_seconds=DEGRADED_SECONDS,
    )
