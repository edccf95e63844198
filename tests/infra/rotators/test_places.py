"""Targets that hang hold up neither another workspace nor everybody's operations."""

from contextlib import ExitStack

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.rotators.places import TargetPlaces


def taken(places: TargetPlaces, stack: ExitStack, workspace_id: str) -> int:
    """Take places until there is none, and return how many there were."""
    refused: BulkheadError | None = None
    count = -1
    while refused is None:
        count += 1
        try:
            stack.enter_context(places.take(workspace_id))
        except BulkheadError as error:
            refused = error
    assert (refused.reason, refused.retryable) == (Reason.RATE_LIMITED, True)
    return count


def test_a_workspace_has_some_places_and_leaves_the_others_to_others() -> None:
    places, hanging = TargetPlaces(), new_id(Prefix.WORKSPACE)
    with ExitStack() as stack:
        own = taken(places, stack, hanging)
        assert taken(places, stack, new_id(Prefix.WORKSPACE)) == own
    # What was given back is there again.
    with ExitStack() as stack:
        assert taken(places, stack, hanging) == own


def test_all_workspaces_together_leave_most_of_the_control_queue_free() -> None:
    places = TargetPlaces()
    with ExitStack() as stack:
        in_all = sum(taken(places, stack, new_id(Prefix.WORKSPACE)) for _ in range(100))
    assert in_all == 200
