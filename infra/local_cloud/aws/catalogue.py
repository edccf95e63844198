"""The sizes of machines here: a part of the 1,400 that moto knows, as listing all takes seconds."""

from typing import Final

from moto.ec2.models.instance_types import (
    INSTANCE_TYPE_OFFERINGS,
    INSTANCE_TYPES,
    InstanceTypeBackend,
)

_FAMILIES: Final = frozenset(
    {"c5", "c6i", "c7g", "m5", "m6g", "m6i", "r6i", "t2", "t3", "t3a", "t4g"}
)


def keep_a_part() -> None:
    """Let moto know these families alone; done again it does nothing."""
    for name in [name for name in INSTANCE_TYPES if not _is_kept(name)]:
        del INSTANCE_TYPES[name]
    known = InstanceTypeBackend.instance_types
    known[:] = [each for each in known if _is_kept(each["InstanceType"])]
    for places in INSTANCE_TYPE_OFFERINGS.values():
        for offers in places.values():
            offers[:] = [offer for offer in offers if _is_kept(offer["InstanceType"])]


def _is_kept(name: str) -> bool:
    return name.partition(".")[0] in _FAMILIES
