"""What there is of ours in an account: found by tags, removed by id.

EC2's `DescribeTags` lists every tagged thing of a region, whatever its kind, in one request; what
it names is then looked at, for a thing's tags outlive it by a while. IAM's things are found by
their path, which has the workspace in it.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from domain.cloud import CloudResource, Provider, Tag
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.clouds.aws.clients import Client, Clients
from infra.clouds.aws.errors import unless_gone
from infra.clouds.aws.kinds import (
    KINDS,
    Found,
    is_inside,
    remove_instance_profile,
    remove_role,
    tags_of,
)
from infra.clouds.aws.permissions import IAM_PATH

ASSOCIATION: Final = "route-table-association"

_NAME: Final = re.compile(r"bh-([0-9a-f]{32})-(.+)")
_IAM_KINDS: Final = {
    "role": ("list_roles", "Roles", "RoleName", remove_role),
    "instance-profile": (
        "list_instance_profiles",
        "InstanceProfiles",
        "InstanceProfileName",
        remove_instance_profile,
    ),
}
_REMOVED_IN_ORDER: Final = [ASSOCIATION, *KINDS, "instance-profile", "role"]
_AT_ONCE: Final = 8
# As many values as one filter takes.
_VALUES: Final = 200


def iam_path(workspace_id: str) -> str:
    """Return the path of a workspace's roles and instance profiles."""
    return f"{IAM_PATH}{workspace_id}/"


def inventory(
    clients: Clients, regions: Sequence[str], workspace_id: str, stack_id: str | None
) -> list[CloudResource]:
    """Return everything of a workspace, or of one of its stacks."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(
            lambda region: list(_in_region(clients, region, workspace_id, stack_id)), regions
        )
        found = [resource for answer in answers for resource in answer]
    found += _in_iam(clients("iam"), workspace_id)
    ours = [
        resource
        for resource in found
        if resource.tags.get(Tag.WORKSPACE) == workspace_id
        and stack_id in {None, resource.stack_id}
    ]
    # In this order they let each other go.
    return sorted(ours, key=lambda resource: _REMOVED_IN_ORDER.index(resource.kind))


def remove(clients: Clients, resource: CloudResource) -> None:
    """Remove a resource and wait until it is gone."""
    if resource.kind in _IAM_KINDS:
        _IAM_KINDS[resource.kind][3](clients("iam"), resource.id)
        return
    if resource.kind == ASSOCIATION:
        association = resource.name
        ec2 = clients("ec2", resource.place)
        unless_gone(ec2.disassociate_route_table, AssociationId=association)
        return
    kind = KINDS.get(resource.kind)
    if kind is None:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT, f"{resource.kind!r} is no kind of thing that we make at AWS."
        )
    kind.remove(clients("ec2", resource.place), resource.id)


def _in_region(
    clients: Clients, region: str, workspace_id: str, stack_id: str | None
) -> Iterator[CloudResource]:
    ec2 = clients("ec2", region)
    tagged = _tagged(ec2, workspace_id, stack_id)
    images = _look(ec2, "image", tagged.get("image", ()))
    for kind, ids in tagged.items():
        for item in images if kind == "image" else _look(ec2, kind, ids):
            if kind == "snapshot" and is_inside(item, images):
                # It goes with its image.
                continue
            yield _resource(kind, item, region, tags_of(item))
            if kind == "route-table":
                yield from _associations(item, region)
        if kind == "vpc":
            yield from _strays(ec2, region, ids)


def _tagged(ec2: Client, workspace_id: str, stack_id: str | None) -> dict[str, list[str]]:
    """Return the ids of what is tagged, by kind."""
    key, value = (Tag.STACK, stack_id) if stack_id else (Tag.WORKSPACE, workspace_id)
    pages = ec2.get_paginator("describe_tags").paginate(
        Filters=[{"Name": "key", "Values": [key]}, {"Name": "value", "Values": [value]}]
    )
    found: dict[str, list[str]] = defaultdict(list)
    for page in pages:
        for tag in page["Tags"]:
            if tag["ResourceType"] in KINDS:
                found[tag["ResourceType"]].append(tag["ResourceId"])
    return found


def _look(ec2: Client, kind: str, ids: Sequence[str]) -> list[Found]:
    return [
        item
        for start in range(0, len(ids), _VALUES)
        for item in KINDS[kind].find(ec2, {KINDS[kind].by_id: ids[start : start + _VALUES]})
    ]


def _associations(table: Found, region: str) -> Iterator[CloudResource]:
    """Return which subnets use a route table: a thing of its own, with the table's tags."""
    for association in table.get("Associations", []):
        if not association.get("Main") and association.get("SubnetId"):
            yield CloudResource(
                provider=Provider.AWS,
                kind=ASSOCIATION,
                # As Pulumi imports one.
                id=f"{association['SubnetId']}/{association['RouteTableId']}",
                name=str(association["RouteTableAssociationId"]),
                place=region,
                tags={**tags_of(table), Tag.RESOURCE: "association"},
                inherits=True,
            )


def _strays(ec2: Client, region: str, vpc_ids: Sequence[str]) -> Iterator[CloudResource]:
    """Return untagged network interfaces that keep one of our networks from being removed."""
    vpcs = {item["VpcId"]: tags_of(item) for item in _look(ec2, "vpc", vpc_ids)}
    if not vpcs:
        return
    for item in KINDS["network-interface"].find(ec2, {"vpc-id": list(vpcs)}):
        if not tags_of(item):
            inherited = {**vpcs[item["VpcId"]], Tag.RESOURCE: "network-interface"}
            yield replace(_resource("network-interface", item, region, inherited), inherits=True)


def _resource(kind: str, item: Found, region: str, tags: Mapping[str, str]) -> CloudResource:
    facts = KINDS[kind]
    found = str(item[facts.id])
    return CloudResource(
        provider=Provider.AWS,
        kind=kind,
        id=found,
        name=tags.get("Name", found),
        place=region,
        tags=tags,
        created_at=facts.created_at(item),
        costs=facts.costs,
    )


def _in_iam(iam: Client, workspace_id: str) -> Iterator[CloudResource]:
    for kind, (method, listed_as, name_field, _) in _IAM_KINDS.items():
        pages = iam.get_paginator(method).paginate(PathPrefix=iam_path(workspace_id))
        for item in (item for page in pages for item in page[listed_as]):
            name = str(item[name_field])
            # Lists tell no tags, and the name tells as much.
            parts = _NAME.fullmatch(name)
            tags: dict[str, str] = {Tag.WORKSPACE: workspace_id}
            if parts:
                tags |= {Tag.STACK: f"{Prefix.STACK}_{parts[1]}", Tag.RESOURCE: parts[2]}
            yield CloudResource(
                provider=Provider.AWS,
                kind=kind,
                id=name,
                name=name,
                tags=tags,
                created_at=item.get("CreateDate"),
            )
