"""Everything of ours in a project, of every kind that the programs can make."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from domain.cloud import CloudResource, Provider, Tag
from infra.clouds.gcp.account import GcpAccount, Json
from infra.clouds.gcp.names import NAME_PREFIX, tags_in

SERVICE_ACCOUNT: Final = "service_account"

_ZONAL: Final = "zone"
_REGIONAL: Final = "region"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of Compute Engine's resources.

    Attributes:
        collection: its name in the API.
        argument: what a method calls one.
        scope: `zone`, `region` or nothing.
        labelled: it can have labels; the others are told by their names and descriptions.
        costs: it is billed for while it exists.
    """

    collection: str
    argument: str
    scope: str = ""
    labelled: bool = False
    costs: bool = False


# In the order in which they let each other go.
KINDS: Final[Mapping[str, Kind]] = {
    "instance": Kind(
        collection="instances", argument="instance", scope=_ZONAL, labelled=True, costs=True
    ),
    "disk": Kind(collection="disks", argument="disk", scope=_ZONAL, labelled=True, costs=True),
    "image": Kind(collection="images", argument="image", labelled=True, costs=True),
    "snapshot": Kind(collection="snapshots", argument="snapshot", labelled=True, costs=True),
    "address": Kind(
        collection="addresses", argument="address", scope=_REGIONAL, labelled=True, costs=True
    ),
    "firewall": Kind(collection="firewalls", argument="firewall"),
    "subnetwork": Kind(collection="subnetworks", argument="subnetwork", scope=_REGIONAL),
    "network": Kind(collection="networks", argument="network"),
}


def inventory(account: GcpAccount, workspace_id: str, stack_id: str | None) -> list[CloudResource]:
    """Return what is the workspace's, or one stack's, in an order in which it can be removed."""
    found: list[CloudResource] = []
    attached: set[str] = set()
    for name, kind in KINDS.items():
        for body in _list(account, kind, workspace_id):
            if name == "instance":
                attached |= set(_disks_that_go_with(body))
            if name == "disk" and body["selfLink"] in attached:
                continue
            found.append(_resource(name, kind, body))
    found += _service_accounts(account)
    return [
        one
        for one in found
        if one.tags.get(Tag.WORKSPACE) == workspace_id and stack_id in {None, one.stack_id}
    ]


def path_in(link: str) -> str:
    """Return `projects/...` of a link: the id by which the API and Pulumi find a resource."""
    return f"projects/{link.partition('/projects/')[2]}"


def _list(account: GcpAccount, kind: Kind, workspace_id: str) -> Iterator[Json]:
    collection = getattr(account.compute, kind.collection)()
    wanted = f"labels.{Tag.WORKSPACE}={workspace_id}"
    if not kind.labelled:
        wanted = f'name eq "{NAME_PREFIX}.*"'
    pages = account.pages(
        collection, aggregated=bool(kind.scope), project=account.project, filter=wanted
    )
    for page in pages:
        items = page.get("items", [])
        if not kind.scope:
            yield from items
            continue
        for place in items.values():
            yield from place.get(kind.collection, [])


def _disks_that_go_with(instance: Json) -> Iterator[str]:
    for disk in instance.get("disks", []):
        if disk.get("autoDelete") and "source" in disk:
            yield disk["source"]


def _resource(name: str, kind: Kind, body: Json) -> CloudResource:
    tags = body.get("labels", {}) if kind.labelled else tags_in(body.get("description", ""))
    return CloudResource(
        provider=Provider.GCP,
        kind=name,
        id=path_in(body["selfLink"]),
        name=body["name"],
        place=body.get(kind.scope, "").rpartition("/")[2] if kind.scope else "",
        tags=tags,
        created_at=datetime.fromisoformat(body["creationTimestamp"]),
        costs=kind.costs,
    )


def _service_accounts(account: GcpAccount) -> Iterator[CloudResource]:
    accounts: Any = account.iam.projects().serviceAccounts()
    for page in account.pages(accounts, name=f"projects/{account.project}", pageSize=100):
        for body in page.get("accounts", []):
            tags = tags_in(body.get("description", ""))
            if body["email"].startswith(NAME_PREFIX) and tags:
                yield CloudResource(
                    provider=Provider.GCP,
                    kind=SERVICE_ACCOUNT,
                    id=body["name"],
                    name=body["email"].partition("@")[0],
                    tags=tags,
                )


def remover(account: GcpAccount, resource: CloudResource) -> Callable[[], object]:
    """Return what removes a resource and waits until it is gone."""
    if resource.kind == SERVICE_ACCOUNT:
        return lambda: account.call(
            account.iam.projects().serviceAccounts().delete(name=resource.id)
        )
    kind = KINDS[resource.kind]
    arguments = {kind.argument: resource.name}
    if kind.scope:
        arguments[kind.scope] = resource.place
    collection = getattr(account.compute, kind.collection)()
    return lambda: account.change(collection.delete, **arguments)
