"""What operations of installs wait for, where installs are listed and not their operations."""

from collections.abc import Iterable

from cli.client import NO_RETRY, ApiClient, JsonObject
from cli.errors import ApiError
from cli.text import clean

APPROVAL = "approval"

# The operations that began last are one answer; others are asked for one by one, so many at most.
_NEWEST = 100
_MOST_ASKED = 20


def waits_of(client: ApiClient, install_ids: Iterable[str]) -> dict[str, str]:
    """Return what the operations under way wait for, by the ids of their installs.

    It is only for show: what cannot be read, or waits for nothing, is left out.
    """
    unknown = set(install_ids)
    waits: dict[str, str] = {}
    if unknown:
        # Of two on one install, the newer one took it over.
        newest = reversed(_operations(client, limit=_NEWEST))
        waits = {one["owner_id"]: clean(one.get("waiting_for")) for one in newest}
    for install_id in sorted(unknown - waits.keys())[:_MOST_ASKED]:
        own = _operations(client, owner_type="install", owner_id=install_id, limit=1)
        waits |= {one["owner_id"]: clean(one.get("waiting_for")) for one in own}
    return {install_id: wait for install_id, wait in waits.items() if wait}


def wait_in_words(waiting_for: str) -> str:
    """Return what an operation waits for, in a few words."""
    known = {APPROVAL: "waits for an approval", "emergency_stop": "held by an emergency stop"}
    return known.get(waiting_for, f"waits for: {waiting_for}")


def _operations(client: ApiClient, **filters: object) -> list[JsonObject]:
    """Return operations that are under way, newest first."""
    try:
        found = client.get("/operations", retry=NO_RETRY, **filters)["data"]
    except ApiError:
        return []
    return [one for one in found if not one["done"]]
