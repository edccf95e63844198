"""The demo, chapter by chapter, each step of them timed."""

import dataclasses
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cli.client import ApiClient, JsonObject, segment
from cli.commands.workspaces import create_in
from cli.configuration import Configuration, Wishes
from cli.demo import cluster as demo_cluster
from cli.demo.cloud_machines import CloudMachines
from cli.demo.cluster import DemoCluster
from cli.demo.kubernetes import Kubectl, find_kubectl
from cli.demo.local_cloud import LocalCloud
from cli.demo.rollout import ProductRollout
from cli.demo.selection import remember_workspace
from cli.demo.servers import LEAVES, STAYS, OwnServers
from cli.demo.simulated import LABELS, SimulatedNodes
from cli.demo.stack import (
    NODE_ADDRESS_VARIABLE,
    Stack,
    home_directory,
    is_named_by_environment,
    reach_stack,
)
from cli.demo.story import Story
from cli.demo.workloads import REPLICAS, Workload
from cli.errors import CliError, ExitCode
from cli.invocation import shown
from cli.output import Output
from cli.private_files import write_private
from cli.text import clean

_WORKSPACE = "demo"
_REGION = "demo"
# Of pods that run nowhere, so that nothing ever asks for it.
_NO_IMAGE = "simulated"
_WITH_SIMULATED_NODES = 'make demo ARGS="--simulated-nodes 3"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What a person chose.

    Attributes:
        fresh: the demo's cluster is deleted first.
        servers: servers shall join, where this machine can boot them.
        clouds: local clouds shall make machines, where this machine can boot servers.
        rollout: a product shall be rolled out over three clusters.
        simulated_nodes: how many simulated nodes there shall be instead.
    """

    fresh: bool
    servers: bool
    clouds: bool
    rollout: bool
    simulated_nodes: int


class Walkthrough:
    """One run of the demo."""

    def __init__(self, output: Output, choices: Choices) -> None:
        self._output = output
        self._choices = choices
        self._story = Story(output)
        self._cloud = LocalCloud(home_directory() / "demo" / "servers")
        self._servers_joined = False
        self._rolled_out = False

    def run(self) -> None:
        """Go all the way.

        Raises:
            CliError: something failed; its `next_commands` say what to type.
        """
        story = self._story
        story.chapter("The stack")
        boots = self._boots_servers()
        with story.timed("stack is ready"):
            with_clouds = boots and self._choices.clouds
            stack = reach_stack(self._output, for_servers=boots, with_clouds=with_clouds)
        account = ApiClient(stack.connection)
        story.chapter("A workspace and a region")
        with story.timed("workspace"):
            workspace = self._workspace(account)
        self._aim_hints(stack, workspace)
        is_chosen = remember_workspace(stack, workspace, account, self._output)
        client = ApiClient(stack.connection, workspace_id=workspace["id"])
        with story.timed("region"):
            region = self._region(client)
        story.chapter("A cluster")
        with story.timed("cluster is active"):
            cluster = DemoCluster(story, client, self._cloud).active(
                region, fresh=self._choices.fresh
            )
        kubeconfig = stack.directory / "kubeconfig"
        kubectl = self._look_inside(client, stack, cluster, kubeconfig)
        if self._choices.simulated_nodes:
            self._simulate(kubectl, stack)
        elif boots and stack.is_reached_by_servers:
            if self._choices.servers:
                self._use_servers(client, stack, cluster, kubectl)
                self._servers_joined = True
            if self._choices.clouds and stack.has_local_clouds:
                self._use_clouds(client, stack, cluster, kubectl)
        if self._choices.rollout:
            self._roll_out(client, stack, region, cluster)
        story.chapter("How long it took")
        story.show_times()
        if is_chosen:
            self._output.invocation = dataclasses.replace(self._output.invocation, workspace=None)
        self._what_next(stack, kubeconfig, _workflows_url(client))

    def _boots_servers(self) -> bool:
        """Whether servers shall join and can be booted here; says why not."""
        wanted = self._choices.servers or self._choices.clouds
        if not wanted or self._choices.simulated_nodes:
            return False
        if is_named_by_environment():
            self._output.note("Servers of this machine join the embedded stack only; none will.")
            return False
        if os.environ.get(NODE_ADDRESS_VARIABLE) == "none":
            self._output.note(f"No servers will join: {NODE_ADDRESS_VARIABLE} is none.")
            return False
        if self._cloud.prepare():
            return True
        self._story.careful("So no real servers join in this run.")
        self._output.next_commands(_WITH_SIMULATED_NODES)
        return False

    def _workspace(self, account: ApiClient) -> JsonObject:
        found = [entry for entry in account.pages("/workspaces") if entry["name"] == _WORKSPACE]
        # Lists are newest first; the oldest is the one that earlier runs used.
        workspace = found[-1] if found else create_in(account, {"name": _WORKSPACE})
        self._story.found("Workspace", workspace, _found_or(found, "is created"))
        return workspace

    def _region(self, client: ApiClient) -> JsonObject:
        found = [entry for entry in client.pages("/regions") if entry["name"] == _REGION]
        region = found[-1] if found else client.create("/regions", {"name": _REGION})
        self._story.found("Region", region, _found_or(found, "is created"))
        return region

    def _look_inside(
        self, client: ApiClient, stack: Stack, cluster: JsonObject, kubeconfig: Path
    ) -> Kubectl:
        self._story.chapter("Inside the cluster")
        with self._story.timed("kubeconfig"):
            answer = client.get(f"/clusters/{segment(cluster['id'])}/kubeconfig")
            write_private(kubeconfig, answer["kubeconfig"])
        self._story.done(f"Kubeconfig in {shown(kubeconfig)}, readable by you only")
        kubectl = Kubectl(find_kubectl(stack.home), kubeconfig, self._output)
        with self._story.timed("kubectl get namespaces"):
            kubectl.show_namespaces()
        with self._story.timed("ConfigMap written and read back"):
            kubectl.write_and_read_config_map()
        return kubectl

    def _use_servers(
        self, client: ApiClient, stack: Stack, cluster: JsonObject, kubectl: Kubectl
    ) -> None:
        servers = OwnServers(self._story, client, self._cloud, cluster)
        workload = Workload(self._story, kubectl)
        self._story.chapter("Two servers of your own join")
        servers.join(kubectl)
        self._story.chapter("A Deployment with a Service on them")
        workload.deploy(stack.demo_image())
        if len(workload.nodes()) != REPLICAS:
            message = "The pods are not on two servers."
            raise CliError(message, ExitCode.FAILED)
        workload.look_inside()
        self._story.chapter(f"One server leaves: {LEAVES} is drained and removed")
        servers.leave(LEAVES)
        self._output.note()
        with self._story.working("Deployment is complete on the other server"):
            workload.wait()
        workload.show_pods()
        workload.ask()
        servers.show()

    def _use_clouds(
        self, client: ApiClient, stack: Stack, cluster: JsonObject, kubectl: Kubectl
    ) -> None:
        machines = CloudMachines(self._story, client, cluster, stack.cloud_accounts)
        self._story.chapter("A machine on each of three clouds")
        self._story.careful(
            "These clouds are on this machine: their APIs and Pulumi's provider programs are ours; "
            "the engine, the providers' clients and the servers' boot are real."
        )
        machines.create(kubectl)
        self._story.chapter("A pod on each")
        machines.run_pods(kubectl, stack.demo_image())
        self._story.chapter("They go, and their accounts are asked what is left")
        machines.remove()

    def _simulate(self, kubectl: Kubectl, stack: Stack) -> None:
        self._story.chapter("Simulated nodes")
        self._story.careful(
            "These nodes are simulated by kwok: no servers, and pods that run in name only."
        )
        workload = Workload(self._story, kubectl)
        nodes = SimulatedNodes(self._story, kubectl, stack.directory)
        with nodes.running(self._choices.simulated_nodes):
            workload.deploy(_NO_IMAGE, only_on=LABELS)
            workload.remove()
        self._story.done("The simulated nodes and pods are removed; they live as long as kwok runs")

    def _roll_out(
        self, client: ApiClient, stack: Stack, region: JsonObject, cluster: JsonObject
    ) -> None:
        if stack.is_embedded:
            ProductRollout(self._story, client, stack).run(region, cluster)
            self._rolled_out = True
        else:
            told = "No product is rolled out: its chart would go to the embedded stack's registry."
            self._story.careful(told)

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
        name = demo_cluster.NAME
        suggestions = [
            ("use the cluster", f"export KUBECONFIG={shlex.quote(str(kubeconfig.absolute()))}"),
            ("", f"{kubectl} get namespaces"),
            ("see it stop", typed(f"bulkhead clusters suspend {name}")),
            ("and come back", typed(f"bulkhead clusters resume {name}")),
        ]
        if stack.is_reached_by_servers:
            suggestions += [
                ("see its machines", typed(f"bulkhead machines list --cluster {name}")),
                ("let a server of yours join", typed(f"bulkhead bootstraps create {name}")),
            ]
        if self._servers_joined:
            look = self._cloud.typed("run", STAYS, "'bulkhead-node status'")
            suggestions.append(("look into a server of the demo", look))
        if self._rolled_out:
            suggestions.append(("see the rollouts", typed("bulkhead rollouts list")))
        suggestions += [
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
        self._story.heading("What next")
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
