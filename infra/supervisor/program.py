"""What is to run, and what runs."""

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Program:
    """One process that is kept running.

    Attributes:
        name: unique within its group.
        command: the program's absolute path and its arguments. Arguments are visible to every
            user of the machine: never a secret.
        directory: the working directory.
        environment: everything that the process finds in its environment, but for the minimal
            one of supervisord itself.
        uid: the user (and the group of the same number) to run as; needs root, and no passwd
            entry. None: whoever runs supervisord.
        gid: the group, where it differs from `uid`.
        stop_signal: what asks the process to end, without `SIG`.
        stop_seconds: how long it may take before it is killed.
        death_signal: what the kernel sends when supervisord dies.
        priority: lower ones start first and stop last.
    """

    name: str
    command: list[str]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    uid: int | None = None
    gid: int | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    death_signal: str = "KILL"
    priority: int = 999


class ProcessState(IntEnum):
    """Supervisord's own states; `BACKOFF` ended at once and will be tried again."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200
    UNKNOWN = 1000

    @property
    def has_process(self) -> bool:
        """Whether a process exists in this state."""
        return self in {ProcessState.STARTING, ProcessState.RUNNING, ProcessState.STOPPING}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessInfo:
    """What supervisord says of one process.

    Attributes:
        state: where it is in its life.
        pid: its process id, None when there is no process.
        started_at: Unix time of the latest start, 0 before the first.
        exit_status: of the latest end, 0 before the first.
        log_file: where its output goes.
        problem: why it could not be started, empty when it could.
    """

    state: ProcessState
    pid: int | None
    started_at: int
    exit_status: int
    log_file: Path
    problem: str
