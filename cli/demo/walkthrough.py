"""The demo, step by step, each of them timed."""

import dataclasses
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.client import ApiClient, JsonObject, segment
from cli.commands.workspaces import create_in
from cli.configuration import Configuration, Wishes
from cli.demo.kubernetes import Kubectl, find_kubectl
from cli.demo.selection import remember_workspace
from cli.demo.stack import Stack, reach_stack
from cli.errors import CliError, ExitCode
from cli.follow import follow
from cli.invocation import shown
from cli.output import Column, Output
from cli.private_files import write_private
from cli.text import clean, duration
from cli.waiting import OperationEndedError, title_of

_WORKSPACE = "demo"
_REGION = "demo"
_CLUSTER = "demo"

# Each round waits for one operation or starts one; a cluster that is being suspended needs the
# most: suspend, resume, look. More rounds mean that somebody else is changing it.
_ROUNDS = 6
_PAUSE_SECONDS = 0.5

_TIMES = (Column("STEP", "step"), Column("TOOK", "took", right=True))


class Walkthrough:
    """One run of the demo."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._times: list[tuple[str, float]] = []

    def run(self, *, fresh: bool) -> None:
        """Go all the way.

        Raises:
            CliError: something failed; its `next_commands` say what to type.
        """
        output = self._output
        begin = time.monotonic()
        self._chapter("1. The stack")
        with self._timed("stack is ready"):
            stack = reach_stack(output)
        account = ApiClient(stack.connection)
        self._chapter("2. A workspace and a region")
        with self._timed("workspace"):
            workspace = self._workspace(account)
        self._aim_hints(stack, workspace)
        is_chosen = remember_workspace(stack, workspace, account, output)
        client = ApiClient(stack.connection, workspace_id=workspace["id"])
        with self._timed("region"):
            region = self._region(client)
        self._chapter("3. A cluster")
        with self._timed("cluster is active"):
            cluster = self._active_cluster(client, region, fresh=fresh)
        self._chapter("4. Inside the cluster")
        kubeconfig = stack.home / "demo" / "kubeconfig"
        with self._timed("kubeconfig"):
            answer = client.get(f"/clusters/{segment(cluster['id'])}/kubeconfig")
            write_private(kubeconfig, answer["kubeconfig"])
        output.note(("✓ ", "green"), f"Kubeconfig in {shown(kubeconfig)}, readable by you only")
        kubectl = Kubectl(find_kubectl(stack.home), kubeconfig, output)
        with self._timed("kubectl get namespaces"):
            kubectl.show_namespaces()
        with self._timed("ConfigMap written and read back"):
            kubectl.write_and_read_config_map()
        self._chapter("5. How long it took")
        self._times.append(("altogether", time.monotonic() - begin))
        rows = [{"step": name, "took": duration(seconds)} for name, seconds in self._times]
        output.listing(rows, _TIMES, ())
        if is_chosen:
            output.invocation = dataclasses.replace(output.invocation, workspace=None)
        self._what_next(stack, kubeconfig, _workflows_url(client))

    def _workspace(self, account: ApiClient) -> JsonObject:
        found = [entry for entry in account.pages("/workspaces") if entry["name"] == _WORKSPACE]
        # Lists are newest first; the oldest is the one that earlier runs used.
        workspace = found[-1] if found else create_in(account, {"name": _WORKSPACE})
        self._tell("Workspace", workspace, _found_or(found, "is created"))
        return workspace

    def _region(self, client: ApiClient) -> JsonObject:
        found = [entry for entry in client.pages("/regions") if entry["name"] == _REGION]
        region = found[-1] if found else client.create("/regions", {"name": _REGION})
        self._tell("Region", region, _found_or(found, "is created"))
        return region

    def _active_cluster(self, client: ApiClient, region: JsonObject, *, fresh: bool) -> JsonObject:
        """Bring the demo's cluster to `active`, whatever state it is found in."""
        acted = False
        for _ in range(_ROUNDS):
            cluster = self._find_cluster(client)
            running = None if cluster is None else self._running(client, cluster)
            if running is not None:
                self._output.note("The demo's cluster is being changed; waiting for that first.")
                self._see_through(client, running, must_succeed=False)
            elif cluster is None:
                body = {"name": _CLUSTER, "region_id": region["id"]}
                self._see_through(client, client.create("/clusters", body))
                acted, fresh = True, False
            elif fresh:
                self._output.note("Starting afresh: the cluster of the run before goes.")
                self._see_through(client, self._change(client, cluster, "DELETE", ""))
            elif cluster["state"] == "suspended":
                self._output.note("The demo's cluster is suspended; resuming it.")
                self._see_through(client, self._change(client, cluster, "POST", ":resume"))
                acted = True
            elif cluster["state"] == "active":
                how = "is active" if acted else "is active since an earlier run; using it again"
                self._tell("Cluster", cluster, how)
                return cluster
            else:
                # Between two states: its operation ended after the cluster was read.
                time.sleep(_PAUSE_SECONDS)
        message = "The demo's cluster does not come to rest; somebody else is changing it."
        raise CliError(message, ExitCode.CONFLICT, next_commands=("bulkhead operations list",))

    def _find_cluster(self, client: ApiClient) -> JsonObject | None:
        found = [entry for entry in client.pages("/clusters") if entry["name"] == _CLUSTER]
        return found[-1] if found else None

    def _running(self, client: ApiClient, cluster: JsonObject) -> JsonObject | None:
        if not cluster["reconciling"]:
            return None
        owner: dict[str, object] = {"owner_type": "cluster", "owner_id": cluster["id"]}
        operations = client.pages("/operations", **owner)
        return next((entry for entry in operations if not entry["done"]), None)

    def _change(self, client: ApiClient, cluster: JsonObject, method: str, verb: str) -> JsonObject:
        path = f"/clusters/{segment(cluster['id'])}{verb}"
        return client.change(method, path, etag=cluster["etag"])

    def _see_through(
        self, client: ApiClient, operation: JsonObject, *, must_succeed: bool = True
    ) -> None:
        title = title_of(operation, _CLUSTER)
        seen = follow(client, self._output, operation, title)
        self._times.append((title, seen.elapsed_seconds))
        self._times += [
            (f"  {step.name}", step.seconds) for step in seen.steps() if step.seconds is not None
        ]
        if must_succeed and seen.operation["state"] != "SUCCEEDED":
            raise OperationEndedError(seen.operation)

    def _tell(self, noun: str, resource: JsonObject, how: str) -> None:
        self._output.note(
            ("✓ ", "green"), f"{noun} {clean(resource['name'])} {how} ({resource['id']})"
        )

    def _chapter(self, title: str) -> None:
        self._output.note()
        self._output.note((title, "bold cyan"))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._times.append((name, time.monotonic() - begin))

    def _aim_hints(self, stack: Stack, workspace: JsonObject) -> None:
        """Let proposed commands act in the demo's workspace, whatever else is chosen."""
        try:
            elsewhere = Configuration().resolve(Wishes()).url != stack.connection.url
        except CliError:
            elsewhere = True
        self._output.invocation = dataclasses.replace(
            self._output.invocation,
            workspace=clean(workspace["slug"]),
            url=stack.connection.url if elsewhere else None,
        )

    def _what_next(self, stack: Stack, kubeconfig: Path, workflows_url: str | None) -> None:
        typed = self._output.invocation.typed
        kubectl = shutil.which("kubectl") and "kubectl"
        kubectl = kubectl or shlex.quote(shown(find_kubectl(stack.home)))
        python = shlex.quote(shown(Path(sys.executable)))
        suggestions = [
            ("use the cluster", f"export KUBECONFIG={shlex.quote(str(kubeconfig.absolute()))}"),
            ("", f"{kubectl} get namespaces"),
            ("see it stop", typed(f"bulkhead clusters suspend {_CLUSTER}")),
            ("and come back", typed(f"bulkhead clusters resume {_CLUSTER}")),
            ("see what was done", typed("bulkhead operations list")),
            ("run this again, with a new cluster", f"{python} -m cli.demo --fresh"),
            ("read the API", f"{stack.connection.url}/docs"),
        ]
        if workflows_url is not None:
            suggestions.append(("see the workflows in Temporal", workflows_url))
        elif stack.is_embedded:
            suggestions.append(("find the Temporal UI", "make status"))
        if stack.is_embedded:
            suggestions.append(("stop everything, and keep it", "make down"))
        self._chapter("What next")
        width = max(len(what) for what, _ in suggestions)
        for what, how in suggestions:
            self._output.note(f"  {what.ljust(width)}  ", (how, "cyan"), copied=True)


def _workflows_url(client: ApiClient) -> str | None:
    """Return where Temporal lists the workflows; None where operations have no page there."""
    for operation in client.read_list("/operations", limit=1):
        page = clean(operation["html_url"])
        if "/workflows/" in page:
            return page.rpartition("/")[0]
    return None


def _found_or(found: list[JsonObject], otherwise: str) -> str:
    return "is there from an earlier run" if found else otherwise
