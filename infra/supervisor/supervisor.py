"""One supervisord: its life, and the groups of programs that it runs."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.supervisor import daemon
from infra.supervisor.client import FaultCode, SupervisorClient
from infra.supervisor.configuration import (
    KEEPER,
    UNREADABLE,
    group_configuration,
    main_configuration,
    problem_of,
    set_aside_unreadable,
)
from infra.supervisor.files import SupervisorFiles, write_atomically
from infra.supervisor.program import ProcessInfo, ProcessState, Program

# From kill -9 to answering again: 0.5 s on an idle machine with two cores, and up to 10 s when
# children take their time to die.
_REVIVAL_SECONDS = 30.0

# What a program may take to stop beyond its own `stop_seconds`, after which it is killed.
_STOP_MARGIN_SECONDS = 10.0

_POLL_SECONDS = 0.02


class Supervisor:
    """The supervisord of one directory. Every method may be repeated, and by several processes.

    Args:
        directory: holds its configuration, socket, logs; owned by us alone. Short: with the name
            of the socket its path must fit in 99 bytes.
    """

    def __init__(self, directory: Path) -> None:
        self.files = SupervisorFiles(directory.absolute())
        self._client = SupervisorClient(self.files.socket)

    @property
    def pid(self) -> int | None:
        """The process id of the living supervisord, None when there is none."""
        return daemon.pid_of(self.files)

    def ensure_running(self) -> None:
        """Start supervisord unless it runs, and wait until it answers.

        Raises:
            BulkheadError: INTERNAL when it cannot start, DEPENDENCY_UNAVAILABLE when it does not
                answer in time.
        """
        self.files.make()
        self.files.stopped.unlink(missing_ok=True)
        configuration = main_configuration(self.files)
        if not self._answers():
            daemon.end_lost(self.files)
            write_atomically(self.files.configuration, configuration)
            daemon.start_daemon(self.files)
            # Whoever else was first also starts the one that is waited for here.
            _wait_until(self._answers, _REVIVAL_SECONDS, "supervisord to answer")

    def shutdown(self) -> None:
        """Stop every program and supervisord itself, and wait until all are gone."""
        if not self.files.directory.exists():
            return
        self.files.stopped.touch(mode=0o600)
        if not daemon.is_alive(self.files):
            daemon.end_left_behind(self.files)
            return
        seconds = max((self._stop_seconds()), default=0.0) + _STOP_MARGIN_SECONDS
        try:
            self._wait_for_programs(self._all().values())
            # All at once: by itself, it would wait for each group before it turns to the next.
            self._client.call("stopAllProcesses", False)
            self._client.call("shutdown")
        except BulkheadError as error:
            # On its way down already, or between its birth and its first answer.
            if error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
                raise
        _wait_until(
            lambda: not daemon.is_alive(self.files), seconds, f"{self.files.directory} to stop"
        )
        daemon.end_left_behind(self.files)

    def lost(self) -> list[int]:
        """Return the process ids of supervisords whose directory was removed while they ran."""
        return daemon.find_lost(self.files)

    def end_lost(self) -> None:
        """End the lost ones and what they run, and wait until all are gone."""
        daemon.end_lost(self.files)

    def add(self, group: str, programs: Iterable[Program]) -> None:
        """Make the group run exactly these programs; a group that already does is left alone.

        Returns once supervisord has them, not once they run: look at `state`.

        Raises:
            BulkheadError: FAILED_PRECONDITION for a program that cannot be written down,
                DEPENDENCY_UNAVAILABLE when supervisord does not answer.
        """
        content = group_configuration(self.files, group, programs)
        problem = problem_of(self.files, content)
        if problem is not None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION, f"supervisord cannot run the group {group}: {problem}"
            )
        path = self.files.group(group)
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            write_atomically(path, content)
        path.with_suffix(UNREADABLE).unlink(missing_ok=True)
        if group in self._reload_changed():
            self._stop_and_forget(group)
        self._client.call("addProcessGroup", group, expected=(FaultCode.ALREADY_ADDED,))
        for name, process in self.state(group).items():
            if process.state in {ProcessState.STOPPED, ProcessState.EXITED, ProcessState.FATAL}:
                self._start(group, name)

    def remove(self, group: str) -> None:
        """Stop the group's programs, wait until they are gone, and forget them and their logs."""
        # The file goes first: a supervisord that starts meanwhile must not bring them back.
        path = self.files.group(group)
        path.unlink(missing_ok=True)
        path.with_suffix(UNREADABLE).unlink(missing_ok=True)
        if daemon.is_alive(self.files):
            self._reload_changed()
            self._stop_and_forget(group)
        for log in self.files.logs.glob(f"{group}.*.log*"):
            log.unlink(missing_ok=True)

    def groups(self) -> list[str]:
        """Return the names of all groups that were added and not removed."""
        return sorted(path.stem for path in self.files.groups.glob("*.conf"))

    def state(self, group: str) -> dict[str, ProcessInfo]:
        """Return the group's processes by name; empty when supervisord has no such group."""
        return {name: process for (found, name), process in self._all().items() if found == group}

    def stop(self, group: str, name: str) -> None:
        """Stop one process and wait until it is gone; it stays in the group, stopped."""
        self._wait_for_programs(self.state(group).values())
        expected = (FaultCode.NOT_RUNNING, FaultCode.BAD_NAME)
        self._client.call("stopProcess", f"{group}:{name}", False, expected=expected)
        _wait_until(lambda: not self._has_process(group, name), self._patience(), f"{name} to stop")

    def restart(self, group: str, name: str, signal: str = "TERM") -> None:
        """End one process by the signal, and wait until another one is there in its place.

        Raises:
            BulkheadError: NOT_FOUND when supervisord has no such process, DEADLINE_EXCEEDED when
                it does not end or does not come back.
        """
        before = self._process(group, name)
        if before.state.has_process:
            self._wait_for_programs([before])
            self._client.call(
                "signalProcess", f"{group}:{name}", signal, expected=(FaultCode.NOT_RUNNING,)
            )
        else:
            self._start(group, name)

        def is_replaced() -> bool:
            now = self._process(group, name)
            return now.pid not in {None, before.pid} and now.state.has_process

        _wait_until(is_replaced, self._patience(), f"{name} to restart")

    def _all(self) -> dict[tuple[str, str], ProcessInfo]:
        return {
            (info["group"], info["name"]): ProcessInfo(
                state=ProcessState(info["state"]),
                pid=info["pid"] or None,
                started_at=info["start"],
                exit_status=info["exitstatus"],
                log_file=Path(info["stdout_logfile"]),
                problem=info["spawnerr"],
            )
            for info in self._client.call("getAllProcessInfo")
        }

    def _wait_for_programs(self, processes: Iterable[ProcessInfo]) -> None:
        """Wait until each fresh process is its program, and no copy of supervisord any more.

        The copy would swallow the signal that asks it to stop, and be killed only much later.
        """
        fresh = [
            process.pid
            for process in processes
            if process.pid and process.state is ProcessState.STARTING
        ]
        _wait_until(
            lambda: not any(daemon.is_supervisord(self.files, pid) for pid in fresh),
            _REVIVAL_SECONDS,
            "programs to start",
        )

    def _answers(self) -> bool:
        try:
            self._client.call("getState")
        except BulkheadError as error:
            if error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
                raise
            return False
        return True

    def _process(self, group: str, name: str) -> ProcessInfo:
        process = self.state(group).get(name)
        if process is None:
            raise BulkheadError(
                Reason.NOT_FOUND, f"supervisord runs no program {name} in the group {group}."
            )
        return process

    def _has_process(self, group: str, name: str) -> bool:
        process = self.state(group).get(name)
        return process is not None and process.state.has_process

    def _start(self, group: str, name: str) -> None:
        self._client.call(
            "startProcess", f"{group}:{name}", False, expected=(FaultCode.ALREADY_STARTED,)
        )

    def _reload_changed(self) -> list[str]:
        """Have the files read again; return the running groups whose file differs."""
        answer = self._client.call("reloadConfig", expected=(FaultCode.CANT_REREAD,))
        if answer is FaultCode.CANT_REREAD:
            set_aside_unreadable(self.files)
            answer = self._client.call("reloadConfig")
        changed: list[str] = answer[0][1]
        return changed

    def _stop_and_forget(self, group: str) -> None:
        unknown = (FaultCode.BAD_NAME,)
        self._wait_for_programs(self.state(group).values())
        answer = self._client.call("stopProcessGroup", group, False, expected=unknown)
        if answer is FaultCode.BAD_NAME:
            return

        def is_forgotten() -> bool:
            refused = (FaultCode.STILL_RUNNING, *unknown)
            answer = self._client.call("removeProcessGroup", group, expected=refused)
            return answer is not FaultCode.STILL_RUNNING

        _wait_until(is_forgotten, self._patience(), f"the programs of {group} to stop")

    def _patience(self) -> float:
        return max(self._stop_seconds(), default=10.0) + _STOP_MARGIN_SECONDS

    def _stop_seconds(self) -> list[float]:
        """Return how long each program of any group may take to stop."""
        files = [self.files.configuration, *self.files.groups.glob("*.conf")]
        return [
            float(line.removeprefix("stopwaitsecs="))
            for path in files
            if path.exists()
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("stopwaitsecs=")
        ]


def _wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BulkheadError(
                Reason.DEADLINE_EXCEEDED,
                f"Waited {seconds:.0f} s in vain for {what}.",
                metadata={"dependency": "supervisord"},
            )
        time.sleep(_POLL_SECONDS)


__all__ = ["KEEPER", "Supervisor"]
