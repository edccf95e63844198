"""Stacks: the Pulumi stacks in which a customer's cloud resources are made and remembered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from domain.cloud import Provider
from domain.identifiers import opaque_part

PROJECT: Final = "bulkhead"

# How long a worker that says nothing keeps a stack to itself.
LEASE_SECONDS: Final = 60


class StackKind(StrEnum):
    """The programs: what nodes of one cluster share in one place, and one machine."""

    NETWORK = "network"
    MACHINE = "machine"


class StackState(StrEnum):
    """How far a stack is.

    Attributes:
        PLANNED: nothing was asked of the provider yet.
        CHANGING: a runner works on it, or died while it did: its resources are to be looked for.
        PRESENT: all of it exists, and its outputs are known.
        REMOVED: the provider was asked after everything that it could have, and had none of it.
    """

    PLANNED = "planned"
    CHANGING = "changing"
    PRESENT = "present"
    REMOVED = "removed"


class StackAction(StrEnum):
    """What a runner does: Pulumi's own words."""

    UP = "up"
    REFRESH = "refresh"
    DESTROY = "destroy"


def stack_name_of(kind: StackKind, stack_id: str) -> str:
    """Return the name by which Pulumi knows a stack."""
    return f"{kind}-{opaque_part(stack_id)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkShape:
    """What the network program of every provider gets."""

    place: str
    region: str
    # The addresses of the place's nodes.
    cidr: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineShape:
    """What the machine program of every provider gets.

    Attributes:
        network: the outputs of the network's stack, by their names in its program.
        image: the provider's name or id of an image; a snapshot's id for a machine that resumes.
        disk_gib: of its root disk, where the provider lets one choose.
    """

    place: str
    region: str
    instance_type: str
    image: str
    network: Mapping[str, str] = field(default_factory=dict)
    disk_gib: int = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class StackProgram:
    """Which program a runner runs, with what. Nothing of it is a secret.

    Attributes:
        tags: what every resource is tagged with, by `domain.cloud.Tag`; RESOURCE is added by the
            program itself.
        adopt: resources that exist already though the state does not know of them, by logical
            name: the ids under which Pulumi imports them.
    """

    workspace_id: str
    stack_id: str
    kind: StackKind
    provider: Provider
    shape: NetworkShape | MachineShape
    tags: Mapping[str, str]
    adopt: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name by which Pulumi knows the stack."""
        return stack_name_of(self.kind, self.stack_id)
