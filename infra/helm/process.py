"""One run of Helm's program: its files are in memory, and nothing of it is left behind."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.helm.places import MOST_BYTES
from infra.kubernetes.kubeconfig import in_memory
from infra.supervisor.configuration import util_linux

# Helm records an interrupted deployment as failed, which takes a request or two.
_INTERRUPTED_WITHIN_SECONDS: Final = 10.0
_KILLED_WITHIN_SECONDS: Final = 5.0
_MAXIMUM_OUTPUT_BYTES: Final = 48 * 1024 * 1024
_MAXIMUM_ERROR_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 256 * 1024

# A folder that nobody can make: Helm keeps nothing, and finds no plugin and no login of others.
_NOWHERE: Final = "/proc/self/nowhere"
_ENVIRONMENT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("HOME", "TMPDIR", "KUBECACHEDIR", "PATH"), _NOWHERE),
    **dict.fromkeys(("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"), _NOWHERE),
    "HELM_PLUGINS": _NOWHERE,
    # Our own API servers: the client's default of 5 requests a second is for strangers'.
    "HELM_QPS": "100",
    "HELM_BURST_LIMIT": "300",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command came to: its exit status, and what it printed and said."""

    code: int
    output: str
    said: str


async def run_helm(
    program: Path,
    arguments: Sequence[str],
    contents: Mapping[str, bytes],
    config: bytes | None,
    *,
    seconds: float,
    may_finish: bool,
    heap_bytes: int,
) -> Ended:
    """Run a command to its end; names of `contents` in its arguments become their files.

    Args:
        program: Helm.
        arguments: the command first.
        contents: what it reads besides.
        config: a kubeconfig; None: the command asks no cluster.
        seconds: how long it may take.
        may_finish: stopped, it is interrupted first, and killed 10 s later.
        heap_bytes: from which size its heap is collected; it takes more when it needs that.

    Raises:
        BulkheadError: DEADLINE_EXCEEDED when its time was over; FAILED_PRECONDITION or
            INVALID_ARGUMENT for more memory or output than it is given; INTERNAL when something
            else ended it.
    """
    with contextlib.ExitStack() as held:
        files = {
            name: held.enter_context(in_memory(name.lower(), content))
            for name, content in contents.items()
        }
        # Most runs end before their garbage is in anybody's way; looking for it from the usual
        # 4 MB on is a fifth of their processor time (75 -> 60 ms for a render, 127 -> 104 ms for an
        # upgrade, of a chart of two objects).
        environment = {**_ENVIRONMENT, "GOGC": "off", "GOMEMLIMIT": str(heap_bytes)}
        if config is not None:
            files["KUBECONFIG"] = held.enter_context(in_memory("kubeconfig", config))
            environment["KUBECONFIG"] = _path_of(files["KUBECONFIG"])
        process = await asyncio.create_subprocess_exec(
            *(util_linux("setpriv"), "--pdeathsig=KILL", "--", os.fspath(program)),
            *(_with_paths(argument, files) for argument in arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=tuple(files.values()),
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        async with _ending(process, may_finish=may_finish):
            return await _outcome_of(process, arguments[0], seconds)


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _with_paths(argument: str, files: Mapping[str, int]) -> str:
    option, sign, name = argument.rpartition("=")
    return f"{option}{sign}{_path_of(files[name])}" if name in files else argument


async def _outcome_of(process: asyncio.subprocess.Process, command: str, seconds: float) -> Ended:
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    try:
        async with asyncio.timeout(seconds):
            output, said = await asyncio.gather(
                _whole(process.stdout), _last_of(process.stderr, _MAXIMUM_ERROR_BYTES)
            )
            code = await process.wait()
    except TimeoutError:
        raise BulkheadError(
            Reason.DEADLINE_EXCEEDED,
            f"`helm {command}` did not end within {seconds:.0f} s and was stopped.",
            metadata={"dependency": "helm", "cause": "time"},
        ) from None
    if b"fatal error: " in said and b"out of memory" in said:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"`helm {command}` needs more memory than the {MOST_BYTES:,} bytes that it is "
            "given; make the chart smaller.",
            metadata={"dependency": "helm", "cause": "memory"},
        )
    if code < 0:
        raise BulkheadError(
            Reason.INTERNAL,
            f"`helm {command}` was ended by a signal ({-code}).",
            metadata={"dependency": "helm", "cause": "killed"},
        )
    return Ended(code, output.decode(errors="replace"), said.decode(errors="replace"))


async def _whole(stream: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while piece := await stream.read(_READ_BYTES):
        found += piece
        if len(found) > _MAXIMUM_OUTPUT_BYTES:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"The chart comes to more than {_MAXIMUM_OUTPUT_BYTES:,} bytes of objects; make it "
                "smaller.",
                metadata={"dependency": "helm", "cause": "too_large"},
            )
    return bytes(found)


async def _last_of(stream: asyncio.StreamReader, count: int) -> bytes:
    found = bytearray()
    while piece := await stream.read(_READ_BYTES):
        found += piece
        del found[:-count]
    return bytes(found)


@contextlib.asynccontextmanager
async def _ending(process: asyncio.subprocess.Process, *, may_finish: bool) -> AsyncIterator[None]:
    """See to it that nothing of a process is left, even if that is cancelled once more."""
    try:
        yield
    finally:
        ending = asyncio.ensure_future(_end(process, may_finish=may_finish))
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(ending)


async def _end(process: asyncio.subprocess.Process, *, may_finish: bool) -> None:
    signals = [(signal.SIGKILL, _KILLED_WITHIN_SECONDS)]
    if may_finish:
        signals.insert(0, (signal.SIGINT, _INTERRUPTED_WITHIN_SECONDS))
    for number, seconds in signals:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            # What nobody reads any more would block it at its end.
            async with asyncio.timeout(seconds):
                await process.communicate()
