"""What is done about a run that did not come to its end.

The engine may have asked the provider for things that its state does not know; made again, they
would be there twice. So the account is asked by tag first: what the program would make is taken
over into the state, anything else is removed. All of this blocks: call it in a thread.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.cloud import SNAPSHOT, CloudResource
from domain.errors import BulkheadError, Reason
from domain.stack import StackProgram
from infra.clouds.cloud import Cloud
from infra.clouds.registry import profile_of
from infra.clouds.removal import Left

# Things may show one after the other.
_LONGEST_SECONDS: Final = 60.0
# A look asks every region; each pause is longer than the one before.
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """What an account has of a stack, beside what its state knows.

    Attributes:
        adoptable: what the program declares and the state does not know, where there is exactly
            one of the name.
        superfluous: everything else that nobody knows.
    """

    adoptable: Sequence[CloudResource]
    superfluous: Sequence[CloudResource]


def compare(
    found: Sequence[CloudResource], known: Mapping[str, str], declared: Mapping[str, str]
) -> Unknown:
    """Compare an account with a state.

    Args:
        found: the inventory of the stack.
        known: the state's ids by logical name.
        declared: the program's resources: inventory kinds by logical name.
    """
    # A snapshot is made beside the program, and kept for a resume.
    ours = [one for one in found if one.resource != SNAPSHOT]
    unknown = [one for one in ours if not _is_known(one, known)]
    candidates = {
        name: [one for one in unknown if one.resource == name and one.kind == kind]
        for name, kind in declared.items()
        if name not in known
    }
    adoptable = [ones[0] for ones in candidates.values() if len(ones) == 1]
    # What came with a resource, under its tags, stays and goes with it: a server's own disk.
    owners = {*known, *(one.resource for one in adoptable)}
    return Unknown(
        adoptable=adoptable,
        superfluous=[
            one
            for one in unknown
            if one not in adoptable
            and not (one.resource in owners and declared.get(one.resource or "") != one.kind)
        ],
    )


def survey(
    program: StackProgram, cloud: Cloud, known: Mapping[str, str], declared: Mapping[str, str]
) -> Unknown:
    """Take the inventory of a stack and compare it with its state.

    As long as something that may have been made is not there, and the provider's lists may be late,
    it is taken again.
    """
    late = profile_of(program.provider).late_seconds
    found = cloud.inventory(program.workspace_id, program.stack_id)
    changed = began = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    while not declared.keys() <= {*known, *(one.resource for one in found)}:
        if time.monotonic() > min(changed + late, began + _LONGEST_SECONDS):
            break
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        before, found = found, cloud.inventory(program.workspace_id, program.stack_id)
        if {one.id for one in found} != {one.id for one in before}:
            changed = time.monotonic()
    return compare(found, known, declared)


def still_there(program: StackProgram, left: Sequence[Left]) -> BulkheadError:
    """Return the failure of a recovery that could not remove what nobody knows."""
    names = ", ".join(f"{one.resource.kind} {one.resource.id} ({one.error})" for one in left)
    return BulkheadError(
        Reason.CONFLICT,
        f"An earlier run left things in the account that cannot be removed: {names}. Remove what"
        " uses them; it is tried again then.",
        metadata={"stack_id": program.stack_id},
        retryable=True,
    )


def _is_known(resource: CloudResource, known: Mapping[str, str]) -> bool:
    state_id = known.get(resource.resource or "")
    return state_id is not None and _is_same(state_id, resource.id)


def _is_same(one: str, other: str) -> bool:
    """Compare ids, of which one may be the other's last part: GCP's have the whole path or not."""
    return one == other or one.endswith(f"/{other}") or other.endswith(f"/{one}")
