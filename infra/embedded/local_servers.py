"""Servers that were booted on this machine for a stack, of which its end must leave nothing."""

from pathlib import Path

from infra.embedded.home import Home
from infra.local_cloud import LocalCloud
from infra.local_cloud.host import Host
from infra.local_cloud.image import server_image
from infra.tools.progress import Progress


def running(home: Home) -> list[str]:
    """Return the names of the demo's that are switched on."""
    directory = _of_demo(home)
    if not directory.is_dir():
        return []
    return [each.name for each in LocalCloud(directory).servers() if each.is_running]


def prepare(home: Home) -> None:
    """Install what the servers of local clouds need, and make their image, saying how far it is.

    Raises:
        BulkheadError: this machine cannot boot servers.
    """
    with Progress() as progress:
        Host(home.clouds).prepare(progress)
        server_image(progress)


def remove(home: Home) -> bool:
    """Remove all of them, and their private networks; tell whether there were any."""
    found = [each for each in (_of_demo(home), home.clouds) if each.is_dir()]
    for directory in found:
        LocalCloud(directory).remove()
    return bool(found)


def _of_demo(home: Home) -> Path:
    return home.demo / "servers"
