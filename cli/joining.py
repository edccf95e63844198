"""The moment at which a server uses the right to join that it was given."""

import time

from cli.client import ApiClient, JsonObject, segment
from cli.errors import CliError, ExitCode

_POLL_SECONDS = 0.5


def bootstraps_of(cluster_id: str) -> str:
    """Return the path of a cluster's worker bootstraps."""
    return f"/clusters/{segment(cluster_id)}/worker_bootstraps"


def joining_operation(
    client: ApiClient, bootstrap: JsonObject, *, within_seconds: float | None = None
) -> JsonObject:
    """Wait until a server used the bootstrap; return the operation that sees it through.

    Args:
        client: asks the API.
        bootstrap: the right to join.
        within_seconds: how long to wait; None: as long as the bootstrap may be used.

    Raises:
        CliError: no server used it.
    """
    path = f"{bootstraps_of(bootstrap['cluster_id'])}/{segment(bootstrap['id'])}"
    begin = time.monotonic()
    while (now := client.get(path)).get("machine_id") is None:
        if now["status"] != "active":
            message = f"The bootstrap is {now['status']}, and no server has used it."
            raise CliError(message, ExitCode.FAILED)
        if within_seconds is not None and time.monotonic() - begin > within_seconds:
            message = f"No server has used the bootstrap within {within_seconds:.0f} s."
            raise CliError(message, ExitCode.FAILED)
        time.sleep(_POLL_SECONDS)
    # Lists are newest first; joining is the first thing that happens to a machine.
    return client.read_list("/operations", owner_type="machine", owner_id=now["machine_id"])[-1]
