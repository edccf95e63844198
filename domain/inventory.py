"""Decides which of the things in an account somebody wants: a pure function of rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from domain.cloud import SNAPSHOT, SNAPSHOT_PART, CloudResource
from domain.stack import StackState

# What is made has its rows before; the time lets a provider's lists catch up with what it removed,
# and clocks differ.
YOUNG_FOR: Final = timedelta(minutes=15)

# How far a provider's clock and ours may be apart.
_CLOCKS_DIFFER_BY: Final = timedelta(minutes=10)

# What providers call a disk that is kept.
_KEPT_DISKS: Final = frozenset({"image", "snapshot"})


class Standing(StrEnum):
    """What is known of a thing that carries our tags.

    Attributes:
        WANTED: a row wants it.
        OURS: it was ours, and its row says that all of it is removed.
        STRANGE: no row says anything of it, it was never about to be made, there is one too many,
            or somebody else made it: a person has to look.
    """

    WANTED = "wanted"
    OURS = "ours"
    STRANGE = "strange"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownStack:
    """What the rows say of a stack.

    Attributes:
        has_owner: its machine, or its cluster, is there, or an operation still works on it.
        has_snapshot: a machine that is suspended wants the snapshot of its server.
        intended: kinds of all that was ever about to be made of it, by logical name.
        made: ids at the provider of what was found of it before, by logical name.
        whole_at: when all of it was found for the last time.
    """

    state: StackState
    has_owner: bool = True
    has_snapshot: bool = False
    intended: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    whole_at: datetime | None = None


def judge(
    found: Sequence[CloudResource], stacks: Mapping[str, KnownStack]
) -> list[tuple[CloudResource, Standing]]:
    """Return each thing with what is known of it.

    Args:
        found: in one account.
        stacks: by id, as they are after the account was asked.
    """
    same: dict[tuple[str | None, str | None, str], set[str]] = defaultdict(set)
    for thing in found:
        same[thing.stack_id, thing.resource, thing.kind].add(thing.id)
    return [
        (thing, _standing(thing, stacks, same[thing.stack_id, thing.resource, thing.kind]))
        for thing in found
    ]


def is_kept_disk(thing: CloudResource) -> bool:
    """Tell whether a thing is a suspension's snapshot, or a part of one."""
    return thing.resource in {SNAPSHOT, SNAPSHOT_PART} and thing.kind in _KEPT_DISKS


def is_young(thing: CloudResource, now: datetime) -> bool:
    """Tell whether a thing may be on its way to be known, or gone."""
    return thing.created_at is not None and thing.created_at > now - YOUNG_FOR


def is_copy(thing: CloudResource, stack: KnownStack) -> bool:
    """Tell whether a thing with a stack's tags was made when the stack had been whole already.

    Not by us, then: providers' consoles and backups copy tags to a server that is made like
    another one, and to images and snapshots of disks.
    """
    if stack.whole_at is None or thing.created_at is None or is_kept_disk(thing):
        return False
    # AWS tells when a server was switched on.
    if stack.made.get(thing.resource or "") == thing.id:
        return False
    return thing.created_at > stack.whole_at + _CLOCKS_DIFFER_BY


def _standing(thing: CloudResource, stacks: Mapping[str, KnownStack], same: set[str]) -> Standing:
    stack = stacks.get(thing.stack_id or "")
    if stack is None:
        return Standing.STRANGE
    if is_kept_disk(thing):
        is_whole = thing.resource == SNAPSHOT
        return Standing.WANTED if is_whole and stack.has_snapshot else Standing.OURS
    if stack.state is StackState.REMOVED:
        return Standing.STRANGE if is_copy(thing, stack) else Standing.OURS
    if not stack.has_owner:
        return Standing.STRANGE
    made = stack.made.get(thing.resource or "")
    is_second = len(same) > 1 and made in same and thing.id != made
    # What carries no tag is of whoever uses what it lies in, as long as that is wanted.
    is_known = thing.inherits or stack.intended.get(thing.resource or "") == thing.kind
    return Standing.WANTED if is_known and not is_second else Standing.STRANGE
