"""Empties a node: `kubectl drain`, which honours PodDisruptionBudgets, and what is done without.

The kubeconfig with its key is in memory only; kubectl inherits the descriptor.
"""

import asyncio
import contextlib
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.kubeconfig import in_memory, kubeconfig
from infra.kubernetes.logins import Login

# Pods that are deleted without eviction still get this long to end in order.
_GRACE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.5

# After its own timeout kubectl ends by itself; what does not is killed.
_KUBECTL_SLACK_SECONDS: Final = 10.0
_KILLED_WITHIN_SECONDS: Final = 5.0

_REFUSED: Final = re.compile(r'evicting pods/"([^"]+)" -n "([^"]+)".*disruption budget')
_EVICTING: Final = re.compile(r"^evicting pod ([^/\s]+)/(\S+)")

# Called with what is waited for, in words.
OnWait = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DrainResult:
    """How `kubectl drain` ended; `said` is its last line, for a person."""

    emptied: bool
    said: str


async def drain(
    kubectl: Path, url: str, login: Login, node: str, *, seconds: float, on_wait: OnWait
) -> DrainResult:
    """Evict every pod from a cordoned node, for at most so long; a cancel kills kubectl."""
    with (
        in_memory("kubeconfig", kubeconfig(url, login)) as descriptor,
        tempfile.TemporaryDirectory() as cache,
    ):
        process = await asyncio.create_subprocess_exec(
            str(kubectl),
            f"--kubeconfig=/dev/fd/{descriptor}",
            f"--cache-dir={cache}",
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            # Pods that nobody will make anew are evicted too: their server goes away.
            "--force",
            f"--timeout={max(1, round(seconds))}s",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(descriptor,),
            env={},
        )
        try:
            said = ""
            async with asyncio.timeout(seconds + _KUBECTL_SLACK_SECONDS):
                async for line in _lines(process):
                    said = line
                    if (waiting := waiting_of(line)) is not None:
                        await on_wait(waiting)
                return DrainResult(await process.wait() == 0, said)
        except TimeoutError:
            return DrainResult(emptied=False, said=said)
        finally:
            await _end(process)


def waiting_of(line: str) -> str | None:
    """Return what a line of `kubectl drain` says that it waits for."""
    if refused := _REFUSED.search(line):
        pod, namespace = refused.groups()
        return (
            f"pod {namespace}/{pod}: its PodDisruptionBudget allows no disruption now; start "
            "replacements elsewhere, or change the budget"
        )
    if evicting := _EVICTING.search(line):
        return f"pod {evicting[1]}/{evicting[2]} to end"
    return None


def pods_of(client: KubernetesClient, node: str) -> dict[str, Object]:
    """Return the pods that a drain must move, by `namespace/name`."""
    pods = client.list_all("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": pod
        for pod in pods
        if _must_move(pod)
    }


def delete_pods(client: KubernetesClient, pods: dict[str, Object]) -> None:
    """Delete pods without asking their budgets; what does not end in time is forgotten."""
    for pod in pods.values():
        _delete(client, pod, grace_seconds=None)
    deadline = time.monotonic() + _GRACE_SECONDS
    left = pods
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = {name: pod for name, pod in left.items() if _is_there(client, pod)}
    for pod in left.values():
        _delete(client, pod, grace_seconds=0)


def _must_move(pod: Object) -> bool:
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or []
    return (
        "kubernetes.io/config.mirror" not in (metadata.get("annotations") or {})
        and not any(owner["kind"] == "DaemonSet" and owner.get("controller") for owner in owners)
        and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
    )


def _path_of(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _is_there(client: KubernetesClient, pod: Object) -> bool:
    found = client.find(_path_of(pod))
    return found is not None and found["metadata"]["uid"] == pod["metadata"]["uid"]


def _delete(client: KubernetesClient, pod: Object, *, grace_seconds: int | None) -> None:
    try:
        client.delete(_path_of(pod), uid=pod["metadata"]["uid"], grace_seconds=grace_seconds)
    except BulkheadError as error:
        # Its successor has the name by now.
        if error.reason is not Reason.CONFLICT:
            raise


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    async for line in process.stdout:
        yield line.decode(errors="replace").strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _KILLED_WITHIN_SECONDS)
