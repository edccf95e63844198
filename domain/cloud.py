"""Clouds: who makes a customer's servers, where, and what is found in a customer's account."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from domain.identifiers import opaque_part
from domain.secret import SecretKind


class Provider(StrEnum):
    """The providers, by the names that Pulumi gives them."""

    HCLOUD = "hcloud"
    AWS = "aws"
    GCP = "gcp"


CREDENTIAL_KINDS: Final = {
    provider: SecretKind(f"cloud_provider/{provider}") for provider in Provider
}


class Tag(StrEnum):
    """What every resource that we make is tagged with, and found again by.

    Keys and values fit GCP's labels, which are the narrowest: lower-case letters, digits, `_` and
    `-`, 63 characters at most.

    Attributes:
        WORKSPACE: the id of the workspace; nothing without it, or without the name or the parent
            that stands for it, is ever touched.
        CLUSTER: the id of the cluster.
        STACK: the id of the Pulumi stack that has it in its state.
        RESOURCE: its logical name in the stack's program (`server`, `network`, ...).
    """

    WORKSPACE = "bulkhead-workspace"
    CLUSTER = "bulkhead-cluster"
    STACK = "bulkhead-stack"
    RESOURCE = "bulkhead-resource"


# The logical name of the snapshot of a machine that is suspended; it is in no program.
SNAPSHOT: Final = "snapshot"

# That of a part of one, which outlives the whole at some providers. By itself nobody wants it.
SNAPSHOT_PART: Final = "snapshot-disk"

# The logical name of the server in every provider's program of a machine.
SERVER: Final = "server"


def resource_name(stack_id: str, resource: str) -> str:
    """Return the name at the provider of a stack's resource: a pure function of our ids.

    At most 63 characters, a lower-case letter first: GCP's rule (RFC 1035), the narrowest.
    """
    return f"bh-{opaque_part(stack_id)}-{resource}"[:63].rstrip("-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a machine can be.

    Attributes:
        name: what a compute config calls its region: `fsn1`, `eu-central-1a`, `europe-west3-a`.
            For AWS and GCP it is a zone, since a machine is in one.
        region: what the provider groups places by, in which a network spans: `eu-central`,
            `eu-central-1`, `europe-west3`.
    """

    name: str
    region: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceType:
    """A size of machine in one place, as the contract's instance types have it."""

    name: str
    architecture: str
    cpu: float
    memory_mib: int
    storage_mib: int
    available: bool
    price_per_hour: float | None = None
    currency: str | None = None
    # Why there is no price, for a person; None: there is one, or nothing more is known.
    price_unknown: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudResource:
    """Something in a customer's account that carries our workspace tag, or belongs to such.

    Attributes:
        kind: what it is, in the provider's own word: `server`, `volume`, `instance`, `disk`, ...
        id: by which the provider's API finds it.
        name: its name at the provider, or what stands for it.
        place: the place or region that it is in; empty: everywhere.
        tags: its tags; what cannot have any (GCP's networks, for one) gets those that its name
            and its parent tell.
        costs: it is billed for while it exists.
        inherits: it carries no tag itself, and has those of what it lies in.
    """

    provider: Provider
    kind: str
    id: str
    name: str
    place: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    costs: bool = False
    inherits: bool = False

    @property
    def stack_id(self) -> str | None:
        """The stack that made it."""
        return self.tags.get(Tag.STACK)

    @property
    def resource(self) -> str | None:
        """Its logical name in the stack's program."""
        return self.tags.get(Tag.RESOURCE)

    def as_json(self) -> dict[str, Any]:
        """Return what is kept of it and shown."""
        return {
            "provider": self.provider,
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "place": self.place,
            "stack_id": self.stack_id,
            "created_at": None if self.created_at is None else int(self.created_at.timestamp()),
            "costs": self.costs,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A machine's disk as it was when it was suspended."""

    id: str
    size_gb: float
    monthly_cost_cents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """How many more machines a provider lets an account have. None: it does not say."""

    machines_left: int | None = None
    cpus_left: int | None = None
