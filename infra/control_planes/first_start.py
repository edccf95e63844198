"""An etcd that was killed in the first milliseconds of its life, and has to begin again.

Its log of changes exists by then, and the entry that makes it a member of its own cluster does
not. Every later start finds the log, takes the membership to be in there, and waits for a leader
for ever; of 60 that were killed around that moment 20 did. Nothing was ever stored in such an etcd.
"""

import shutil
import time
from typing import Final

from domain.cluster import Component
from infra.control_planes.commands import programs_of
from infra.control_planes.layout import LOOPBACK, Layout
from infra.control_planes.readiness import served_certificate
from infra.supervisor.program import ProcessInfo
from infra.supervisor.supervisor import Supervisor

# It serves 0.2 s after its start on an idle machine. Where it takes longer than this for want of
# processor time, beginning again costs that time once more, and nothing else.
STUCK_SECONDS: Final = 10.0

# A newborn's log has under 1 KiB; the API server writes megabytes before it is ready.
_NEWBORN_BYTES: Final = 4096
_LOOK_AHEAD_BYTES: Final = 65536


def is_stuck(layout: Layout, etcd: ProcessInfo | None) -> bool:
    """Tell whether etcd runs, has never made a control plane ready, and serves nobody."""
    return (
        etcd is not None
        and etcd.pid is not None
        and time.time() - etcd.started_at > STUCK_SECONDS
        and not layout.was_ready.exists()
        and _holds_nothing(layout)
        and served_certificate(LOOPBACK, layout.etcd_port) is None
    )


def _holds_nothing(layout: Layout) -> bool:
    """Tell whether etcd's log ends in its first kilobytes, before any object of a cluster.

    This alone decides whether a store is thrown away, so it looks at the store itself.
    """
    logs = list((layout.etcd_data / "member" / "wal").glob("*.wal"))
    if len(logs) != 1:
        return False
    with logs[0].open("rb") as log:
        log.seek(_NEWBORN_BYTES)
        # Space that is set aside for the log reads as zeros.
        return not any(log.read(_LOOK_AHEAD_BYTES))


def begin_again(supervisor: Supervisor, layout: Layout) -> None:
    """Start etcd with an empty store, and the API server with it: it may remember another one."""
    for component in (Component.API_SERVER, Component.ETCD):
        supervisor.stop(layout.name, component)
    for path in layout.etcd_data.iterdir():
        shutil.rmtree(path)
    supervisor.add(layout.name, programs_of(layout))
