"""The demo's cluster, brought to `active` whatever state it is found in."""

import time
from typing import Final

from cli.client import ApiClient, JsonObject, segment
from cli.demo.local_cloud import LocalCloud
from cli.demo.servers import OwnServers
from cli.demo.story import Story
from cli.errors import CliError, ExitCode

NAME: Final = "demo"

# Each round waits for one operation or starts one; a cluster that is being suspended needs the
# most: suspend, resume, remove its machines, delete, create, look. More rounds mean that somebody
# else is changing it.
_ROUNDS: Final = 8
_PAUSE_SECONDS: Final = 0.5


class DemoCluster:
    """The cluster of a name in the demo's workspace."""

    def __init__(
        self, story: Story, client: ApiClient, cloud: LocalCloud, name: str = NAME
    ) -> None:
        self._name = name
        self._story = story
        self._client = client
        self._cloud = cloud

    def active(self, region: JsonObject, *, fresh: bool) -> JsonObject:
        """Return it when it is active; with `fresh`, a new one.

        Raises:
            CliError: it cannot be brought there.
        """
        acted = False
        for _ in range(_ROUNDS):
            cluster = self._find()
            running = None if cluster is None else self._running(cluster)
            if running is not None:
                told = "The demo's cluster is being changed; waiting for that first."
                self._story.output.note(told)
                self._story.see_through(self._client, running, self._name, must_succeed=False)
            elif cluster is None:
                body = {"name": self._name, "region_id": region["id"]}
                self._story.see_through(
                    self._client, self._client.create("/clusters", body), self._name
                )
                acted, fresh = True, False
            elif cluster["state"] == "suspended":
                # Also one that shall go: its machines could not leave it.
                self._story.output.note("The demo's cluster is suspended; resuming it.")
                self._change(cluster, "POST", ":resume")
                acted = True
            elif fresh and cluster["state"] == "active":
                self._remove(cluster)
            elif cluster["state"] == "active":
                how = "is active" if acted else "is active since an earlier run; using it again"
                self._story.found("Cluster", cluster, how)
                return cluster
            else:
                # Between two states: its operation ended after the cluster was read.
                time.sleep(_PAUSE_SECONDS)
        message = "The demo's cluster does not come to rest; somebody else is changing it."
        raise CliError(message, ExitCode.CONFLICT, next_commands=("bulkhead operations list",))

    def _remove(self, cluster: JsonObject) -> None:
        self._story.output.note("Starting afresh: the cluster of the run before goes.")
        # A cluster that has machines cannot be deleted.
        OwnServers(self._story, self._client, self._cloud, cluster).clear()
        newer = self._client.get(f"/clusters/{segment(cluster['id'])}")
        # What a run that was broken off has installed there is of no use without it.
        self._change(newer, "DELETE", "?force=true")

    def _find(self) -> JsonObject | None:
        found = [entry for entry in self._client.pages("/clusters") if entry["name"] == self._name]
        # Lists are newest first; the oldest is the one that earlier runs used.
        return found[-1] if found else None

    def _running(self, cluster: JsonObject) -> JsonObject | None:
        if not cluster["reconciling"]:
            return None
        owner: dict[str, object] = {"owner_type": "cluster", "owner_id": cluster["id"]}
        operations = self._client.pages("/operations", **owner)
        return next((entry for entry in operations if not entry["done"]), None)

    def _change(self, cluster: JsonObject, method: str, verb: str) -> None:
        path = f"/clusters/{segment(cluster['id'])}{verb}"
        operation = self._client.change(method, path, etag=cluster["etag"])
        self._story.see_through(self._client, operation, self._name)
