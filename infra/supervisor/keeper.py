"""Brings supervisord back when it dies: `python -m infra.supervisor.keeper DIRECTORY`.

Runs as supervisord's own child, under `setpriv --pdeathsig=USR1`. supervisord keeps it alive, and
it keeps supervisord alive; a stop on purpose leaves a file that it respects. When the directory is
removed, whoever did it had no use for what runs in it any more: the keeper ends supervisord.
"""

import os
import signal
import sys
from pathlib import Path

from infra.supervisor.daemon import is_alive, is_lost, is_supervisord, start_daemon
from infra.supervisor.files import SupervisorFiles

# The signal comes at once; looking is for a death before the signal was asked for, and for a
# directory that is gone.
_LOOK_SECONDS = 5


def main(directory: Path) -> None:
    """Wait for the parent's death, then start its successor, and end."""
    files = SupervisorFiles(directory)
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    while os.getppid() == parent and is_supervisord(files, parent):
        if is_lost(files, parent) and os.getppid() == parent:
            # It stops its programs first, and us with them. Beside a successor it must not: it
            # would remove that one's socket.
            os.kill(parent, signal.SIGKILL if is_alive(files) else signal.SIGTERM)
        signal.sigtimedwait({signal.SIGUSR1}, _LOOK_SECONDS)
    # The mask would be inherited by supervisord and by everything that it starts.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    if files.configuration.exists() and not files.stopped.exists():
        start_daemon(files)


if __name__ == "__main__":
    # The parent may die between the fork and main: the signal must not end us then.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    main(Path(sys.argv[1]))
