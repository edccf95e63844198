"""Runs the engine in a process of its own, and sees to it that nothing is left of it."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, opaque_part
from domain.stack import LEASE_SECONDS
from infra.clouds.cloud import CallCount
from infra.database.records.stack import taken_over
from infra.settings import StackSettings
from infra.stacks import runner_files as files
from infra.stacks import sessions
from infra.stacks.backend import StackState, StateBackend
from infra.stacks.failures import failure_of, no_result, without_tokens
from infra.stacks.leases import HeldLease
from infra.stacks.request import StackProgress, StackRequest, StackResult, StackSecrets
from infra.stacks.watch import ALIVE, CANCEL, CANCEL_SECONDS
from infra.supervisor.configuration import source_root

_T = TypeVar("_T")
OnProgress = Callable[[StackProgress], None]

_POLL_SECONDS: Final = 0.2
# Beyond the engine's own time: for a second interrupt, and for the runner to write its result.
_END_SECONDS: Final = CANCEL_SECONDS + 15.0
# Of our own environment: how to reach the outside, and where programs are.
_PASSED_ON: Final = (
    *("PATH", "LANG", "TZ", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


class StackRuns:
    """Starts runners on this host."""

    def __init__(self, settings: StackSettings, backend: StateBackend) -> None:
        self._settings = settings
        self._backend = backend
        self._remove_forgotten()

    async def end_predecessors(self, stack_id: str) -> bool:
        """End what an earlier worker of this host left running for a stack; tell whether it did.

        Only whoever holds the stack's lease may call it.
        """
        ended = await asyncio.to_thread(sessions.end_processes, stack_id)
        for left in self._settings.directory.glob(f"{opaque_part(stack_id)}-*"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        return ended

    async def run(
        self,
        request: StackRequest,
        secrets: StackSecrets,
        held: HeldLease,
        calls: CallCount,
        on_progress: OnProgress | None = None,
    ) -> StackResult:
        """Run an action to its end. When this returns or raises, no process of it is left.

        Cancelled, it lets the engine finish what the provider is doing, for a minute at most.

        Args:
            request: what to do.
            secrets: that it needs.
            held: the stack's lease.
            calls: the account's; about what the provider program made is added, however it ended.
            on_progress: called with each step; what it raises ends the run.

        Raises:
            BulkheadError: what the provider answered, by its reason; DEADLINE_EXCEEDED; ABORTED
                when the stack was taken over; FAILED_PRECONDITION for a wrong passphrase.
        """
        stack_id = request.program.stack_id
        work = self._settings.directory / f"{opaque_part(stack_id)}-{request.fence}"
        try:
            await asyncio.to_thread(self._prepare, work, request, secrets)
            progress = _Progress(work / files.EVENTS, on_progress)
            try:
                await self._carry_out(work, request, secrets, held, progress)
            finally:
                calls.add(progress.calls_at_end())
            state = await self._backend.read(request.program.workspace_id, request.program.name)
            return self._result(work, request, secrets, state)
        finally:
            await to_the_end(asyncio.to_thread(self._clean, stack_id, work))

    def _remove_forgotten(self) -> None:
        """Remove the directories of runs that were killed together with their worker."""
        self._settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._settings.directory.iterdir():
            stack_id = f"{Prefix.STACK}_{left.name.partition('-')[0]}"
            # Another worker may be about to start a run in a directory that it just made.
            try:
                is_old = time.time() - left.stat().st_mtime > LEASE_SECONDS
            except FileNotFoundError:
                # And is done with it.
                continue
            if is_old and not sessions.processes_of(stack_id):
                shutil.rmtree(left, ignore_errors=True)

    def _prepare(self, work: Path, request: StackRequest, secrets: StackSecrets) -> None:
        work.mkdir(mode=0o700, parents=True)
        home = work / files.HOME
        home.mkdir()
        # A home of its own: the engine keeps addresses and choices there, one file a run.
        (home / "plugins").symlink_to(self._settings.pulumi_home.absolute() / "plugins")
        _write(work / files.REQUEST, json.dumps(request.as_json()))
        _write(work / files.PASSPHRASE, secrets.passphrase)
        if secrets.user_data:
            _write(work / files.USER_DATA, secrets.user_data)

    def _environment(
        self, work: Path, request: StackRequest, secrets: StackSecrets
    ) -> Mapping[str, str]:
        program = request.program
        paths = (os.environ.get("PYTHONPATH"), os.fspath(source_root()))
        return {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            **secrets.credential,
            **self._backend.environment(program.workspace_id, request.fence),
            **sessions.mark_of(program.stack_id),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "HOME": os.fspath(work / files.HOME),
            "TMPDIR": os.fspath(work),
            files.ENGINE_VARIABLE: os.fspath(self._settings.programs_dir / sessions.ENGINE),
            "PULUMI_HOME": os.fspath(work / files.HOME),
            "PULUMI_CONFIG_PASSPHRASE_FILE": os.fspath(work / files.PASSPHRASE),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
            "NO_COLOR": "true",
        }

    async def _carry_out(
        self,
        work: Path,
        request: StackRequest,
        secrets: StackSecrets,
        held: HeldLease,
        progress: "_Progress",
    ) -> None:
        """Run the runner's process to its end, whatever that is."""
        with (work / files.LOG).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "infra.stacks.runner", os.fspath(work)),
                cwd=work,
                env=self._environment(work, request, secrets),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Neither a terminal's Ctrl-C nor an end of the worker's group reaches it.
                start_new_session=True,
            )
        held.on_renewal = lambda: _tell(process, ALIVE)
        following = asyncio.create_task(progress.follow())
        lost = asyncio.create_task(held.lost.wait())
        ending = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(request.deadline_seconds):
                await asyncio.wait({ending, lost, following}, return_when=asyncio.FIRST_COMPLETED)
            if held.lost.is_set():
                raise taken_over(request.program.stack_id)
            if following.done():
                # What the callback raised ends the run.
                following.result()
            progress.read()
        except TimeoutError:
            raise _too_late(request) from None
        finally:
            held.on_renewal = lambda: None
            if not ending.done():
                await to_the_end(_end(process, ending, held))
            for task in (following, lost, ending):
                task.cancel()
            await asyncio.gather(following, lost, ending, return_exceptions=True)

    def _result(
        self,
        work: Path,
        request: StackRequest,
        secrets: StackSecrets,
        state: StackState | None,
    ) -> StackResult:
        try:
            document: Mapping[str, Any] = json.loads((work / files.RESULT).read_text())
        except FileNotFoundError:
            log = (work / files.LOG).read_text(errors="replace")
            raise no_result(request, log, secrets) from None
        if document["failed"]:
            raise failure_of(request, document, secrets)
        state = state or StackState()
        return StackResult(
            outputs=state.outputs,
            changes=document["changes"],
            resources=state.resources,
            encryption_salt=state.encryption_salt,
            drift=without_tokens(document["drift"]),
        )

    def _clean(self, stack_id: str, work: Path) -> None:
        sessions.end_processes(stack_id)
        shutil.rmtree(work, ignore_errors=True)


async def to_the_end(work: Awaitable[_T]) -> _T:
    """Await something that must be finished, also by someone who is being cancelled."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except Exception:  # noqa: BLE001 - it is the task's, and raised below
            break
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


async def _end(
    process: asyncio.subprocess.Process, ending: "asyncio.Task[int]", held: HeldLease
) -> None:
    if held.lost.is_set():
        # Another one acts on the stack already.
        await asyncio.to_thread(sessions.kill_processes, held.lease.stack_id)
        return
    _tell(process, CANCEL)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ending), _END_SECONDS)


def _tell(process: asyncio.subprocess.Process, line: bytes) -> None:
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.write(line)


class _Progress:
    """Tells of each step that a runner writes down."""

    def __init__(self, path: Path, on_progress: OnProgress | None) -> None:
        self._path = path
        self._tell = on_progress
        self._position = 0
        self._calls = 0

    async def follow(self) -> None:
        """Look for new steps; never ends by itself."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self.read()

    def read(self) -> None:
        """Tell of the steps that are new."""
        for step in self._new():
            if self._tell is not None:
                self._tell(step)

    def calls_at_end(self) -> int:
        """Return about how many calls were made; no step is told of any more."""
        for _ in self._new():
            pass
        return self._calls

    def _new(self) -> Iterator[StackProgress]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                step = StackProgress(**json.loads(line))
                self._calls = step.calls
                yield step


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _too_late(request: StackRequest) -> BulkheadError:
    return BulkheadError(
        Reason.DEADLINE_EXCEEDED,
        f"The provider was not done within {request.deadline_seconds} s. What it made until then"
        " is found by its tags at the next attempt.",
        metadata={"stack_id": request.program.stack_id, "action": request.action.value},
    )
