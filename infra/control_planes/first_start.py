"""An etcd that was killed in the first milliseconds of its life, and has to begin again.

Its log of changes exists by then, and the entry that makes it a member of its own cluster does
not. Every later start finds the log, takes the membership to be in there, and waits for a leader
for ever: 20 of 60 that were killed within 20 ms did. Nothing was ever stored in such an etcd.
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


def is_stuck(layout: Layout, etcd: ProcessInfo | None) -> bool:
    """Tell whether etcd runs, has never made a control plane ready, and serves nobody."""
    return (
        etcd is not None
        and etcd.pid is not None
        and time.time() - etcd.started_at > STUCK_SECONDS
        and not layout.was_ready.exists()
        and served_certificate(LOOPBACK, layout.etcd_port) is None
    )


def begin_again(supervisor: Supervisor, layout: Layout) -> None:
    """Start etcd with an empty store, and the API server with it: it may remember another one."""
    for component in (Component.API_SERVER, Component.ETCD):
        supervisor.stop(layout.name, component)
    for path in layout.etcd_data.iterdir():
        shutil.rmtree(path)
    supervisor.add(layout.name, programs_of(layout))
