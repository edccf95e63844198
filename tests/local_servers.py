"""A cloud of servers that really boot, in a directory of its own that goes with the tests."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.local_cloud import Host, Image, LocalCloud, LocalServer, server_image
from infra.local_cloud.cloud import sweep_lost_clouds
from infra.tools.progress import Progress
from tests.shadow import shadow_of

# Everything that a server has, but for what any boot and any minute change by themselves.
_STATE = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
    -o -path /var/cache -o -path /var/tmp -o -path /var/log/journal -o -path /var/lib/systemd \
    -o -path /var/lib/cloud \) -prune -o -type f -printf '%p %m %s\n' | grep -v '^/var/log/' | sort
find /var/lib/containerd /run/containerd /run/bulkhead /run/flannel -mindepth 1 2>/dev/null
iptables-save | grep '^-'
ip -brief link | cut -d ' ' -f 1
ip route
cat /etc/hosts
cd /proc/sys/net && grep -H . ipv4/ip_forward ipv4/conf/all/route_localnet \
    bridge/bridge-nf-call-ip*tables netfilter/nf_conntrack_tcp_timeout_*
systemctl list-unit-files --no-legend | grep -v '^run-u' | sort
systemctl --failed --no-legend
"""


def state_of(server: LocalServer) -> list[str]:
    """Return all that a server has; what was installed and removed again makes no difference."""
    return server.run(_STATE).output.splitlines()


def image_or_skip() -> Image:
    """Make the image; tests that need it are skipped only where no package would help."""
    with Progress() as progress:
        try:
            Host().prepare(progress)
        except BulkheadError as error:
            if error.reason is Reason.FAILED_PRECONDITION:
                pytest.skip(error.message)
            raise
        return server_image(progress)


@contextlib.contextmanager
def temporary_cloud() -> Iterator[LocalCloud]:
    """Make a cloud of which nothing is left at the end, nor of any that a killed run left."""
    sweep_lost_clouds()
    # Not in a directory of pytest, whose names make overlay options longer than a page.
    directory = Path(tempfile.mkdtemp(prefix="bulkhead-cloud-"))
    with shadow_of("tests.local_servers", directory):
        try:
            yield LocalCloud(directory)
        finally:
            remove(directory)


def remove(directory: Path) -> None:
    """End all servers of a cloud, and remove it."""
    LocalCloud(directory).remove()
    shutil.rmtree(directory, ignore_errors=True)
