"""Runs Helm: each command a process of its own that leaves nothing behind.

Kubeconfig, chart and values are in memory alone, and Helm reads them as `/proc/self/fd/N`; it has
no folders to write to. It dies with the worker that started it.
"""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from domain.errors import BulkheadError, Reason
from infra.helm.archive import files_of, with_file
from infra.helm.failures import LOCKED, failure_of, template_place
from infra.helm.manifest import is_test, parse_stream
from infra.helm.releases import Release, Revision, break_lock, history
from infra.kubernetes.client import KubernetesClient, Login, Object
from infra.kubernetes.kubeconfig import in_memory, kubeconfig
from infra.supervisor.configuration import util_linux

# What Helm remembers of earlier revisions; restoring takes our own renders.
_REVISIONS_KEPT: Final = 3

# Helm records an interrupted deployment as failed, which takes a request or two.
_INTERRUPTED_WITHIN_SECONDS: Final = 10.0
_KILLED_WITHIN_SECONDS: Final = 5.0
# Beyond Helm's own timeout, for what it does around the wait that it bounds.
_SLACK_SECONDS: Final = 30.0
_RENDERS_WITHIN_SECONDS: Final = 60.0

_MAXIMUM_OUTPUT_BYTES: Final = 48 * 1024 * 1024
_MAXIMUM_ERROR_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 256 * 1024

# A template can ask for any amount of memory, on a host that has other customers' control planes.
# Helm with the largest charts that we know takes 300 MB.
_MAXIMUM_DATA_BYTES: Final = 2 * 1024 * 1024 * 1024

# Helm stops before it asks the API server about the objects, and prints them: that would need
# rights beyond the namespace, and the kinds of CRDs that do not exist yet. It reads what templates
# print in the order of their names, and `~` comes last.
_LAST_TEMPLATE: Final = "~end.yaml"
_NO_YAML: Final = b"end: ["

_UPGRADE_OPTIONS: Final = (
    *("--install", "--server-side=true", "--force-conflicts", "--reset-values"),
    # A server-side apply checks the same itself. Without the schema, which Helm loads anew each
    # time, a small release takes a third of the time.
    "--disable-openapi-validation",
    f"--history-max={_REVISIONS_KEPT}",
)

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

_SOURCE: Final = re.compile(r"^---\n# Source: (\S+)\n", re.MULTILINE)
_REVISION: Final = re.compile(r"^REVISION: (\d+)$", re.MULTILINE)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """An API server, and as whom it is asked; `login` is valid for as long as a command takes."""

    url: str
    login: Login


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    output: str
    said: str


class Helm:
    """The pinned program.

    Every method raises what `infra.helm.failures` makes of Helm's words, and DEADLINE_EXCEEDED when
    it was stopped because its time was over. Cancelled, it interrupts Helm, which then records the
    deployment as failed, and kills it after 10 s.

    Args:
        program: where it is.
    """

    def __init__(self, program: Path) -> None:
        self._program = program

    async def template(
        self,
        archive: bytes,
        values: Mapping[str, Any],
        release: Release,
        access: ClusterAccess | None = None,
        *,
        is_upgrade: bool = False,
        kube_version: str | None = None,
        api_versions: Sequence[str] = (),
        seconds: float = _RENDERS_WITHIN_SECONDS,
        hidden: Iterable[str] = (),
    ) -> list[Object]:
        """Return the objects that a chart comes to, its hooks and CRDs among them, tests not.

        Args:
            archive: the chart.
            values: over the chart's own; with names where they are secret.
            release: for which it is rendered.
            access: to the cluster, whose capabilities then count, and for the templates' `lookup`,
                which reads what the login may read; None: nobody is asked.
            is_upgrade: whether templates are told so.
            kube_version: that templates are told without a cluster.
            api_versions: that templates are told without a cluster, such as `example.com/v1/Web`.
            seconds: how long it may take.
            hidden: what templates may look up, and no error may repeat.

        Raises:
            BulkheadError: INVALID_ARGUMENT when values do not fit the chart's schema, with their
                path, or templates fail; PERMISSION_DENIED when they look up what they may not.
        """
        marked = await asyncio.to_thread(with_file, archive, _LAST_TEMPLATE, _NO_YAML)
        arguments = ["template", release.name, "CHART", f"--namespace={release.namespace}"]
        # Hooks are among what all templates print; Helm would print them once more.
        arguments += ["--values=VALUES", "--debug", "--no-hooks"]
        arguments.append("--dry-run=client" if access is None else "--dry-run=server")
        if is_upgrade:
            arguments.append("--is-upgrade")
        if access is None:
            arguments += [] if kube_version is None else [f"--kube-version={kube_version}"]
            arguments += [f"--api-versions={version}" for version in api_versions]
        contents = {"CHART": marked, "VALUES": json.dumps(values).encode()}
        ended = await self._run(arguments, contents, access, seconds=seconds)
        place = template_place(ended.said)
        if place is None or not place.endswith(f"/templates/{_LAST_TEMPLATE}"):
            raise failure_of(ended.said, hidden=hidden)
        return await asyncio.to_thread(_rendered, archive, ended.output)

    async def upgrade(
        self,
        archive: bytes,
        release: Release,
        access: ClusterAccess,
        *,
        seconds: float,
        with_hooks: bool = True,
        hidden: Iterable[str] = (),
    ) -> int:
        """Have a release consist of a chart's objects, and return its revision.

        The same once more is one more revision and changes nothing. A lock that a killed Helm left
        is broken.

        Args:
            archive: from `release_chart`.
            release: new or not.
            access: as who may do everything in the namespace.
            seconds: for each of the chart's hooks, and for all of it.
            with_hooks: False: the chart's hooks are not run.
            hidden: what no error may repeat, from `manifest.texts_of`.
        """
        arguments = [
            *("upgrade", release.name, "CHART", f"--namespace={release.namespace}"),
            *_UPGRADE_OPTIONS,
            f"--timeout={max(1, round(seconds))}s",
            *([] if with_hooks else ["--no-hooks"]),
        ]
        try:
            return await self._upgraded(arguments, archive, access, seconds, hidden)
        except BulkheadError as error:
            if error.metadata.get("cause") != LOCKED:
                raise
        await self._with_client(access, lambda client: break_lock(client, release))
        return await self._upgraded(arguments, archive, access, seconds, hidden)

    async def uninstall(
        self,
        release: Release,
        access: ClusterAccess,
        *,
        seconds: float,
        with_hooks: bool = True,
        hidden: Iterable[str] = (),
    ) -> bool:
        """Remove a release and its objects; tell whether there was one.

        Args:
            release: which.
            access: as who may do everything in the namespace.
            seconds: for each of the chart's hooks, and for all of it.
            with_hooks: False: the chart's hooks are not run.
            hidden: what no error may repeat, from `manifest.texts_of`.
        """
        arguments = [
            *("uninstall", release.name, f"--namespace={release.namespace}"),
            f"--timeout={max(1, round(seconds))}s",
            *([] if with_hooks else ["--no-hooks"]),
        ]
        ended = await self._run(arguments, {}, access, seconds=seconds + _SLACK_SECONDS)
        if ended.code == 0:
            return True
        if "release: not found" in ended.said:
            return False
        raise failure_of(ended.said, hidden=hidden)

    async def history(self, release: Release, access: ClusterAccess) -> list[Revision]:
        """Return the revisions that Helm remembers, the newest last."""
        return await self._with_client(access, lambda client: history(client, release))

    async def status(self, release: Release, access: ClusterAccess) -> Revision | None:
        """Return a release's newest revision, None when there is no such release."""
        found = await self.history(release, access)
        return found[-1] if found else None

    async def _upgraded(
        self,
        arguments: Sequence[str],
        archive: bytes,
        access: ClusterAccess,
        seconds: float,
        hidden: Iterable[str],
    ) -> int:
        contents = {"CHART": archive}
        ended = await self._run(arguments, contents, access, seconds=seconds + _SLACK_SECONDS)
        revision = _REVISION.search(ended.output)
        if ended.code != 0 or revision is None:
            raise failure_of(ended.said, hidden=hidden)
        return int(revision[1])

    async def _run(
        self,
        arguments: Sequence[str],
        contents: Mapping[str, bytes],
        access: ClusterAccess | None,
        *,
        seconds: float,
    ) -> _Ended:
        """Run a command to its end; names of `contents` in its arguments become their files."""
        with contextlib.ExitStack() as held:
            files = {
                name: held.enter_context(in_memory(name.lower(), content))
                for name, content in contents.items()
            }
            environment = dict(_ENVIRONMENT)
            if access is not None:
                config = kubeconfig(access.url, access.login)
                files["KUBECONFIG"] = held.enter_context(in_memory("kubeconfig", config))
                environment["KUBECONFIG"] = _path_of(files["KUBECONFIG"])
            command = [util_linux("setpriv"), "--pdeathsig=KILL", "--", os.fspath(self._program)]
            process = await asyncio.create_subprocess_exec(
                *command,
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
                limits = (_MAXIMUM_DATA_BYTES, _MAXIMUM_DATA_BYTES)
                resource.prlimit(process.pid, resource.RLIMIT_DATA, limits)
            async with _ending(process, may_finish=arguments[0] != "template"):
                return await _outcome_of(process, arguments[0], seconds)

    @staticmethod
    async def _with_client(
        access: ClusterAccess, work: Callable[[KubernetesClient], Result]
    ) -> Result:
        def ask() -> Result:
            with KubernetesClient(access.url, lambda: access.login) as client:
                return work(client)

        return await asyncio.to_thread(ask)


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _with_paths(argument: str, files: Mapping[str, int]) -> str:
    option, sign, name = argument.rpartition("=")
    return f"{option}{sign}{_path_of(files[name])}" if name in files else argument


async def _outcome_of(process: asyncio.subprocess.Process, command: str, seconds: float) -> _Ended:
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
            f"`helm {command}` needs more memory than the {_MAXIMUM_DATA_BYTES:,} bytes that it is "
            "given; make the chart smaller.",
            metadata={"dependency": "helm", "cause": "memory"},
        )
    if code < 0:
        raise BulkheadError(
            Reason.INTERNAL,
            f"`helm {command}` was ended by a signal ({-code}).",
            metadata={"dependency": "helm", "cause": "killed"},
        )
    return _Ended(code, output.decode(errors="replace"), said.decode(errors="replace"))


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


def _rendered(archive: bytes, output: str) -> list[Object]:
    """Return the objects in what Helm printed, and those of the chart's folders `crds`."""
    parts = _SOURCE.split(output)
    found: list[Object] = []
    # Helm prints templates in any order.
    for path, text in sorted(zip(parts[1::2], parts[2::2], strict=True)):
        name = path.rpartition("/")[2]
        if not name.startswith("_") and name != _LAST_TEMPLATE:
            found += parse_stream(text)
    for path, content in sorted(files_of(archive).items()):
        if _is_crd_file(path):
            found += parse_stream(content.decode(errors="replace"))
    return [obj for obj in found if not is_test(obj)]


def _is_crd_file(path: str) -> bool:
    # Of the chart itself, and of its subcharts.
    inside = re.sub(r"^(charts/[^/]+/)*", "", path)
    return inside.startswith("crds/") and inside.endswith((".yaml", ".yml", ".json"))
