"""Runs Helm: each command a process of its own that leaves nothing behind.

Kubeconfig, chart and values are in memory alone, and Helm reads them as `/proc/self/fd/N`; it has
no folders to write to. It dies with the worker that started it.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from domain.errors import BulkheadError, Reason
from infra.helm.archive import files_of, with_file
from infra.helm.failures import LOCKED, failure_of, template_place
from infra.helm.lookups import can_look_up, lookups
from infra.helm.manifest import is_test, parse_stream
from infra.helm.places import DEPLOYMENT_HEAP_BYTES, RENDER_HEAP_BYTES, Places, Turns
from infra.helm.process import Ended, run_helm
from infra.helm.releases import Release, Revision, break_lock, history
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.kubeconfig import kubeconfig
from infra.kubernetes.logins import Login

# What Helm remembers of earlier revisions; restoring takes our own renders.
_REVISIONS_KEPT: Final = 3

# Beyond Helm's own timeout, for what it does around the wait that it bounds.
_SLACK_SECONDS: Final = 30.0
_RENDERS_WITHIN_SECONDS: Final = 60.0
# Logins are made before, and live for a quarter of an hour: who waits for longer comes again.
_PLACE_WITHIN_SECONDS: Final = 120.0

# Helm stops before it asks the API server about the objects, and prints them: that would need
# rights beyond the namespace, and the kinds of CRDs that do not exist yet. It reads what templates
# print in the order of their names, and `~` comes last.
_LAST_TEMPLATE: Final = "~end.yaml"
_NO_YAML: Final = b"end: ["

# Of Secrets, in a sentence.
_NAMED: Final = 3

_UPGRADE_OPTIONS: Final = (
    *("--install", "--server-side=true", "--force-conflicts", "--reset-values"),
    # A server-side apply checks the same itself. Without the schema, which Helm loads anew each
    # time, a small release takes a third of the time.
    "--disable-openapi-validation",
    f"--history-max={_REVISIONS_KEPT}",
)

_SOURCE: Final = re.compile(r"^---\n# Source: (\S+)\n", re.MULTILINE)
_REVISION: Final = re.compile(r"^REVISION: (\d+)$", re.MULTILINE)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """An API server, and as whom it is asked; `login` is valid for as long as a command takes."""

    url: str
    login: Login


class Helm:
    """The pinned program. So many run at a time as the host has places; others wait for one.

    Places are given in turn by workspace. A render takes its place by itself. Who deploys or
    removes takes one by `place` before anything is changed: until then nothing has begun.

    Every method raises what `infra.helm.failures` makes of Helm's words, DEADLINE_EXCEEDED when it
    was stopped because its time was over, and DEPENDENCY_UNAVAILABLE when there was no place for
    two minutes. Cancelled, it interrupts Helm, which then records the
    deployment as failed, and kills it after 10 s.

    Args:
        program: where it is.
        places: by default those of this host.
    """

    def __init__(self, program: Path, places: Places | None = None) -> None:
        places = places or Places.of_this_host()
        self._program = program
        self._renders = Turns(places.renders)
        self._deployments = Turns(places.deployments)

    @contextlib.asynccontextmanager
    async def place(self, workspace_id: str) -> AsyncIterator[bool]:
        """Have a place in which releases are deployed or removed; yields whether it had to wait."""
        async with _place_of(self._deployments, workspace_id) as waited:
            yield waited

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
        workspace_id: str = "",
    ) -> list[Object]:
        """Return the objects that a chart comes to, its hooks and CRDs among them, tests not.

        Args:
            archive: the chart.
            values: over the chart's own; with names where they are secret.
            release: for which it is rendered.
            access: to the cluster, whose capabilities then count, and for the templates' `lookup`,
                which reads what the login may read, but for the data of Secrets that the chart did
                not make; None: nobody is asked.
            is_upgrade: whether templates are told so.
            kube_version: that templates are told without a cluster.
            api_versions: that templates are told without a cluster, such as `example.com/v1/Web`.
            seconds: how long it may take.
            hidden: what templates may look up, and no error may repeat.
            workspace_id: whose render it is; a place is given in turn by workspace.

        Raises:
            BulkheadError: INVALID_ARGUMENT when values do not fit the chart's schema, with their
                path, or templates fail; PERMISSION_DENIED when they look up what they may not.
        """
        files = await asyncio.to_thread(files_of, archive)
        marked = await asyncio.to_thread(with_file, files, _LAST_TEMPLATE, _NO_YAML)
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
        async with (
            _seen_by_templates(files, release, access) as (seen, withheld),
            _place_of(self._renders, workspace_id),
        ):
            ended = await self._run(arguments, contents, seen, seconds=seconds)
        place = template_place(ended.said)
        if place is None or not place.endswith(f"/templates/{_LAST_TEMPLATE}"):
            error = failure_of(ended.said, hidden=hidden)
            raise _needs_what_is_withheld(error, withheld) if withheld else error
        return await asyncio.to_thread(_rendered, files, ended.output)

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
    ) -> Ended:
        is_render = arguments[0] == "template"
        config = None if access is None else kubeconfig(access.url, access.login)
        return await run_helm(
            self._program,
            arguments,
            contents,
            config,
            seconds=seconds,
            may_finish=not is_render,
            heap_bytes=RENDER_HEAP_BYTES if is_render else DEPLOYMENT_HEAP_BYTES,
        )

    @staticmethod
    async def _with_client(
        access: ClusterAccess, work: Callable[[KubernetesClient], Result]
    ) -> Result:
        def ask() -> Result:
            with KubernetesClient(access.url, lambda: access.login) as client:
                return work(client)

        return await asyncio.to_thread(ask)


@contextlib.asynccontextmanager
async def _seen_by_templates(
    files: Mapping[str, bytes], release: Release, access: ClusterAccess | None
) -> AsyncIterator[tuple[ClusterAccess | None, set[str]]]:
    """Yield what a render is given of a cluster, and the names of Secrets that it shall not see."""
    if access is None or not await asyncio.to_thread(can_look_up, files):
        yield access, set()
        return
    with KubernetesClient(access.url, lambda: access.login) as client:
        async with lookups(client, release) as found:
            yield ClusterAccess(found.url, access.login), found.withheld


def _needs_what_is_withheld(error: BulkheadError, withheld: Iterable[str]) -> BulkheadError:
    names = ", ".join(sorted(withheld)[:_NAMED])
    return BulkheadError(
        error.reason,
        f"The chart looks up what it has not made: of the Kubernetes Secret {names} templates see "
        f"no data. Have it refer to the Secret by its name. {error.message}",
        path=error.path,
        metadata=error.metadata,
        retryable=error.retryable,
    )


@contextlib.asynccontextmanager
async def _place_of(places: Turns, workspace_id: str) -> AsyncIterator[bool]:
    try:
        async with asyncio.timeout(_PLACE_WITHIN_SECONDS):
            waited = await places.acquire(workspace_id)
    except TimeoutError:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            "As many charts are rendered or applied on this host as its memory can take; it is "
            "tried again.",
            metadata={"dependency": "host", "cause": "memory"},
        ) from None
    try:
        yield waited
    finally:
        places.release()


def _rendered(files: Mapping[str, bytes], output: str) -> list[Object]:
    """Return the objects in what Helm printed, and those of the chart's folders `crds`."""
    parts = _SOURCE.split(output)
    found: list[Object] = []
    # Helm prints templates in any order.
    for path, text in sorted(zip(parts[1::2], parts[2::2], strict=True)):
        name = path.rpartition("/")[2]
        if not name.startswith("_") and name != _LAST_TEMPLATE:
            found += parse_stream(text)
    for path, content in sorted(files.items()):
        if _is_crd_file(path):
            found += parse_stream(content.decode(errors="replace"))
    return [obj for obj in found if not is_test(obj)]


def _is_crd_file(path: str) -> bool:
    # Of the chart itself, and of its subcharts.
    inside = re.sub(r"^(charts/[^/]+/)*", "", path)
    return inside.startswith("crds/") and inside.endswith((".yaml", ".yml", ".json"))
