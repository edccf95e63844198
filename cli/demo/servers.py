"""Own servers: they join the demo's cluster, and one leaves it again."""

import time
from typing import Final

from cli.client import ApiClient, JsonObject, segment
from cli.demo.kubernetes import Kubectl
from cli.demo.local_cloud import LocalCloud
from cli.demo.story import Story
from cli.errors import ApiError, CliError, ExitCode
from cli.joining import bootstraps_of, joining_operation
from cli.output import Column
from cli.text import clean

STAYS: Final = "demo-1"
LEAVES: Final = "demo-2"

# Of a server that has booted; it asks for nothing but the API before it registers.
_REGISTERS_WITHIN_SECONDS: Final = 180.0
_READY_SECONDS: Final = 180
_UNINSTALLED_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5
_CHANGE_ATTEMPTS: Final = 3

_COLUMNS: Final = (
    Column("SERVER", "hostname"),
    Column("ADDRESS", "address"),
    Column("STATE", "state"),
    Column("NODE", "node_name"),
)

# What joining brought to a server; they print nothing where all of that is gone.
_LEFTOVERS: Final = (
    "find / -xdev -name 'bulkhead*' -not -path '/run/*' -not -path '/var/log/*'",
    "systemctl list-units --all --plain --no-legend 'bulkhead*'",
    "pgrep --list-full 'kubelet|kube-proxy|flanneld|konnectivity' || true",
)


class OwnServers:
    """The two servers of the demo, in the cluster and on this machine."""

    def __init__(
        self, story: Story, client: ApiClient, cloud: LocalCloud, cluster: JsonObject
    ) -> None:
        self._story = story
        self._client = client
        self._cloud = cloud
        self._cluster = cluster

    def join(self, kubectl: Kubectl) -> None:
        """Bring both servers into the cluster, from whatever state they are found in.

        Raises:
            CliError: a server does not boot, or does not join.
        """
        with self._story.timed("image of servers"):
            self._cloud.make_image()
        # Both boot before either is waited for: they join at the same time.
        bootstraps = {name: self._switch_on(name) for name in (STAYS, LEAVES)}
        for name, bootstrap in bootstraps.items():
            self._await_join(name, bootstrap)
        nodes = [f"node/{machine['node_name']}" for machine in self.machines().values()]
        with self._story.working("nodes are ready"):
            limit = f"--timeout={_READY_SECONDS}s"
            wait = ["wait", "--for=condition=Ready", *nodes, limit]
            kubectl.run(wait, seconds=_READY_SECONDS + _POLL_SECONDS * 10)
        self.show()
        self._story.output.note()
        kubectl.show(["get", "nodes"])

    def leave(self, name: str) -> None:
        """Drain a server, take it out of the cluster, see that it is as it was, and remove it.

        Raises:
            CliError: it does not leave, or something of the platform stays on it.
        """
        machine = self.machines().get(name)
        if machine is not None:
            operation = self._deletion(machine)
            self._story.see_through(self._client, operation, name)
        with self._story.working(f"{name} is as it was before it joined"):
            self._await_nothing_left(name)
        self._story.output.note()
        for command in _LEFTOVERS:
            self._story.output.note((f"{name}# ", "dim"), (command, "bold"), copied=True)
        self._story.done(f"These print nothing: {name} is as it was before it joined")
        self._cloud.remove(name)
        self._story.done(f"The server {name} is switched off and removed")

    def clear(self) -> None:
        """Take all machines out of the cluster, and remove the servers.

        Raises:
            CliError: a machine does not leave.
        """
        servers = self._cloud.servers()
        for name, machine in self.machines().items():
            server = servers.get(name)
            if server is not None and not server.running:
                # Switched off it could not end its pods, and draining would wait for that.
                self._cloud.boot(name)
            operation = self._deletion(machine)
            self._story.see_through(self._client, operation, name)
        for name in self._cloud.servers():
            self._cloud.remove(name)

    def machines(self) -> dict[str, JsonObject]:
        """Return the cluster's machines by the names of their servers."""
        entries = self._client.pages("/machines", cluster_id=self._cluster["id"])
        return {clean(entry["hostname"] or entry["id"]): entry for entry in entries}

    def show(self) -> None:
        """List the machines as the API tells them."""
        rows = [
            {**machine, "address": ", ".join(machine.get("addresses") or ())}
            for _, machine in sorted(self.machines().items())
        ]
        self._story.output.note()
        self._story.output.listing(rows, _COLUMNS, ("The cluster has no machines.",))

    def _switch_on(self, name: str) -> JsonObject | None:
        """Let a server be on; return the bootstrap that it joins with if it is a new one."""
        machine = self.machines().get(name)
        server = self._cloud.servers().get(name)
        if machine is not None and (server is None or machine["state"] == "DELETING"):
            self._story.output.note(f"{name} was about to leave, or its disk is gone; it leaves.")
            operation = self._running(machine) or self._deletion(machine)
            self._story.see_through(self._client, operation, name)
            machine = None
        if machine is None:
            if server is not None:
                # It was left half-way; what it was given to join with may be used up.
                self._cloud.remove(name)
            return self._boot_new(name)
        if server is not None and not server.running:
            with self._story.working(f"{name} is booted again"):
                self._cloud.boot(name)
            self._story.done(f"{name} was switched off; it is booted again")
        else:
            self._story.done(f"{name} is in the cluster since an earlier run")
        return None

    def _boot_new(self, name: str) -> JsonObject:
        """Boot a server whose cloud-init joins the cluster; return the bootstrap."""
        body = {"ttl_seconds": 900}
        bootstrap = self._client.create(bootstraps_of(self._cluster["id"]), body)
        user_data = bootstrap.get("cloud_init")
        if user_data is None:
            message = "The answer with the new worker bootstrap was lost on the way."
            raise CliError(message, ExitCode.UNAVAILABLE)
        self._story.done(f"Worker bootstrap {bootstrap['id']}: works once, for 15 minutes")
        with self._story.working(f"{name} is booted"):
            self._cloud.boot(name, user_data)
        self._story.done(f"{name} is a new server; its cloud-init runs the one line that joins")
        return bootstrap

    def _await_join(self, name: str, bootstrap: JsonObject | None) -> None:
        """Show how a server joins, to the end; without a bootstrap, if it still does."""
        try:
            if bootstrap is None:
                operation = self._running(self.machines()[name])
            else:
                operation = joining_operation(
                    self._client, bootstrap, within_seconds=_REGISTERS_WITHIN_SECONDS
                )
            if operation is not None:
                self._story.see_through(self._client, operation, name)
        except CliError as error:
            look = self._cloud.typed("run", name, "'tail /var/log/cloud-init-output.log'")
            error.next_commands = (*(error.next_commands or ()), look)
            raise

    def _running(self, machine: JsonObject) -> JsonObject | None:
        owner: dict[str, object] = {"owner_type": "machine", "owner_id": machine["id"]}
        operations = self._client.pages("/operations", **owner)
        return next((entry for entry in operations if not entry["done"]), None)

    def _deletion(self, machine: JsonObject) -> JsonObject:
        """Ask for a machine's removal, after what else is being done with it."""
        path = f"/machines/{segment(machine['id'])}"
        for _ in range(_CHANGE_ATTEMPTS):
            running = self._running(machine)
            if running is not None:
                name = clean(machine["hostname"])
                self._story.see_through(self._client, running, name, must_succeed=False)
            try:
                etag = self._client.get(path)["etag"]
                return self._client.change("DELETE", path, etag=etag)
            except ApiError as error:
                if error.exit_code is not ExitCode.CONFLICT:
                    raise
                failure = error
        raise failure

    def _await_nothing_left(self, name: str) -> None:
        deadline = time.monotonic() + _UNINSTALLED_SECONDS
        while left := self._cloud.look(name, "; ".join(_LEFTOVERS)).strip():
            if time.monotonic() > deadline:
                message = f"Something of the platform is left on {name}: {clean(left)}"
                raise CliError(message, ExitCode.FAILED)
            time.sleep(_POLL_SECONDS)
