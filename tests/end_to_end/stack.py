"""A whole stack as a user has it, and a small client of its public API."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from infra.control_planes.processes import host_supervisor
from infra.embedded.stack import Stack
from infra.embedded.status import status_of
from infra.settings import EmbeddedSettings
from tests.servers import temporary_home

HEALS_WITHIN_SECONDS = 60.0
POLL_SECONDS = 0.1
# More than any command is told to wait.
KUBECTL_SECONDS = 240.0
# Promised for one create while one part of the platform dies and comes back.
COMPLETES_WITHIN_SECONDS = 120.0

Body = dict[str, Any]
Found = TypeVar("Found")


class Bulkhead:
    """One running stack, seen from outside."""

    def __init__(self, stack: Stack, url: str, token: str) -> None:
        self.stack = stack
        self.http = httpx.Client(
            base_url=f"{url}/v1", headers={"Authorization": f"Bearer {token}"}, timeout=70
        )

    def get(self, path: str) -> Body:
        """Read, through whatever restarts are going on."""
        return self.persist("GET", path)

    def persist(self, method: str, path: str, **request: Any) -> Body:  # noqa: ANN401 - httpx's
        """Ask until there is an answer that is not of a platform that is just coming back."""
        deadline = time.monotonic() + COMPLETES_WITHIN_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.request(method, path, **request)
                if answer.status_code < 500 or time.monotonic() > deadline:
                    assert answer.is_success, answer.text
                    return answer.json() if answer.content else {}
            assert time.monotonic() < deadline, f"no answer to {method} {path}"
            time.sleep(POLL_SECONDS)

    def new_region(self) -> str:
        """Make a region in the owner's first workspace."""
        return str(self.persist("POST", "/regions", json={"name": "here"})["id"])

    def create_cluster(self, region: str | None = None, name: str = "test") -> Body:
        """Ask for a cluster; safe to repeat, so it gets through a restart."""
        key = uuid4().hex
        return self.persist(
            "POST",
            "/clusters",
            json={"name": name, "region_id": region or self.new_region()},
            headers={"Idempotency-Key": key},
        )

    def end_of(self, operation: Body, within_seconds: float = COMPLETES_WITHIN_SECONDS) -> Body:
        """Wait for an operation's end."""
        deadline = time.monotonic() + within_seconds
        while True:
            found = self.get(f"/operations/{operation['id']}")
            if found["done"]:
                return found
            assert time.monotonic() < deadline, f"still running: {found['steps']}"
            time.sleep(POLL_SECONDS)

    def wait_for_step(self, operation: Body, step: str) -> None:
        """Wait until a step has begun."""
        deadline = time.monotonic() + COMPLETES_WITHIN_SECONDS
        while True:
            found = self.get(f"/operations/{operation['id']}")
            status = {each["name"]: each["status"] for each in found["steps"]}[step]
            if status != "pending" or found["done"]:
                return
            assert time.monotonic() < deadline, f"{step} never began"
            time.sleep(POLL_SECONDS / 5)

    def eventually(self, look: Callable[[], Found | None]) -> Found:
        """Look again and again until there is something."""
        deadline = time.monotonic() + COMPLETES_WITHIN_SECONDS
        while True:
            found = look()
            if found is not None:
                return found
            assert time.monotonic() < deadline, "it never came"
            time.sleep(POLL_SECONDS)

    def delete_cluster(self, cluster_id: str) -> Body:
        """Delete a cluster and wait for the end."""
        path, key = f"/clusters/{cluster_id}", uuid4().hex

        def ask() -> Body | None:
            # What still runs on the cluster may end between the two, and change its etag.
            headers = {"If-Match": self.get(path)["etag"], "Idempotency-Key": key}
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.delete(path, headers=headers)
                if answer.is_server_error or _has_changed(answer):
                    return None
                assert answer.is_success, answer.text
                return dict(answer.json())
            return None

        return self.end_of(self.eventually(ask))

    def kubectl(self, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl."""
        return subprocess.run(
            [self.stack.home.programs / "kubectl", f"--kubeconfig={kubeconfig}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=KUBECTL_SECONDS,
        )

    def kubeconfig(self, cluster_id: str, path: Path) -> Path:
        """Fetch an administrator's kubeconfig."""
        path.write_text(self.get(f"/clusters/{cluster_id}/kubeconfig")["kubeconfig"])
        return path

    def pid_of(self, component: str) -> int:
        """Return the process of one part of the stack."""
        found = {each.component: each.pid for each in status_of(self.stack)}[component]
        assert found is not None, f"{component} does not run"
        return found

    def kill(self, component: str) -> None:
        """End one process as a crash would."""
        os.kill(self.pid_of(component), signal.SIGKILL)

    def control_planes(self) -> dict[str, int]:
        """Return each control plane's number of running components, by its group's name."""
        supervisor = host_supervisor(self.stack.control_planes)
        return {
            group: sum(1 for each in supervisor.state(group).values() if each.pid)
            for group in supervisor.groups()
            if group.startswith("cp-")
        }


def _has_changed(answer: httpx.Response) -> bool:
    if answer.status_code != httpx.codes.CONFLICT:
        return False
    return bool(answer.json()["errors"][0]["metadata"]["reason"] == "ABORTED")


def wait_until_healthy(bulkhead: Bulkhead) -> None:
    """Return when every part of the stack runs and is right."""
    deadline = time.monotonic() + HEALS_WITHIN_SECONDS
    while True:
        with contextlib.suppress(Exception):
            wrong = [each for each in status_of(bulkhead.stack) if not each.is_right]
            if not wrong:
                return
        assert time.monotonic() < deadline, "the stack did not heal"
        time.sleep(0.2)


@contextlib.contextmanager
def running_bulkhead(*, node_address: str | None = None) -> Iterator[Bulkhead]:
    """Bring a whole stack up in a home of its own, and take it down with everything in it.

    Args:
        node_address: as in the stack's settings; without one no server can join.
    """
    with temporary_home() as home:
        stack = Stack(home, EmbeddedSettings(home=None, node_address=node_address))
        owner = stack.up()
        assert owner is not None
        bulkhead = Bulkhead(stack, stack.api.address, owner.token)
        with bulkhead.http:
            yield bulkhead
