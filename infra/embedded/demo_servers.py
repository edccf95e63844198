"""The servers that the demo booted on this machine, of which a stack's end must leave nothing."""

from infra.embedded.home import Home
from infra.local_cloud import LocalCloud


def running(home: Home) -> list[str]:
    """Return the names of those that are switched on."""
    cloud = _cloud_of(home)
    return [] if cloud is None else [each.name for each in cloud.servers() if each.is_running]


def remove(home: Home) -> bool:
    """Remove all of them, and their private network; tell whether there were any."""
    cloud = _cloud_of(home)
    if cloud is None:
        return False
    cloud.remove()
    return True


def _cloud_of(home: Home) -> LocalCloud | None:
    directory = home.demo / "servers"
    return LocalCloud(directory) if directory.is_dir() else None
