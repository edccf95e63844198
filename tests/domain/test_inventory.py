"""What of an account is wanted, is ours to remove, or is for a person to look at."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.cloud import SERVER, SNAPSHOT, SNAPSHOT_PART, CloudResource, Provider, Tag
from domain.inventory import YOUNG_FOR, KnownStack, Standing, is_young, judge
from domain.stack import StackState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STACK = "stk_1"
INTENDED = {SERVER: "server"}


def thing(
    resource: str = SERVER,
    *,
    stack: str = STACK,
    cloud_id: str = "1",
    kind: str = "",
    inherits: bool = False,
) -> CloudResource:
    return CloudResource(
        provider=Provider.HCLOUD,
        kind=kind or ("snapshot" if resource in {SNAPSHOT, SNAPSHOT_PART} else "server"),
        id=cloud_id,
        name="bh",
        tags={Tag.STACK: stack, Tag.RESOURCE: resource},
        created_at=NOW,
        inherits=inherits,
    )


@pytest.mark.parametrize(
    ("stack", "resource", "standing"),
    [
        (KnownStack(state=StackState.CHANGING, intended=INTENDED), SERVER, Standing.WANTED),
        (KnownStack(state=StackState.PRESENT, intended=INTENDED), SERVER, Standing.WANTED),
        # Nobody has asked for it yet.
        (KnownStack(state=StackState.PLANNED), SERVER, Standing.STRANGE),
        (KnownStack(state=StackState.REMOVED), SERVER, Standing.OURS),
        # Its machine is gone, and nobody has said that it shall go too.
        (KnownStack(state=StackState.PRESENT, has_owner=False), SERVER, Standing.STRANGE),
        # Of a suspended machine, whose server is gone.
        (KnownStack(state=StackState.REMOVED, has_snapshot=True), SNAPSHOT, Standing.WANTED),
        (KnownStack(state=StackState.REMOVED), SNAPSHOT, Standing.OURS),
        # Of a suspension that was taken back.
        (KnownStack(state=StackState.PRESENT), SNAPSHOT, Standing.OURS),
        # The whole that it was a part of is gone, or would have it inside.
        (KnownStack(state=StackState.PRESENT), SNAPSHOT_PART, Standing.OURS),
        (KnownStack(state=StackState.REMOVED, has_snapshot=True), SNAPSHOT_PART, Standing.OURS),
    ],
)
def test_a_thing_stands_as_its_stack_says(
    stack: KnownStack, resource: str, standing: Standing
) -> None:
    assert [what for _, what in judge([thing(resource)], {STACK: stack})] == [standing]


@pytest.mark.parametrize(
    "stranger",
    [
        # Somebody's backup of the server, to which a console has copied the tags.
        thing(kind="image"),
        thing("disk", kind="volume"),
        thing(SNAPSHOT, kind="server"),
        thing("backup"),
    ],
    ids=lambda one: f"{one.resource} as {one.kind}",
)
def test_what_was_never_about_to_be_made_is_for_a_person_while_its_stack_lives(
    stranger: CloudResource,
) -> None:
    known = {STACK: KnownStack(state=StackState.PRESENT, intended=INTENDED, has_snapshot=True)}
    assert [what for _, what in judge([stranger], known)] == [Standing.STRANGE]


def test_what_others_have_in_our_network_is_theirs_while_that_is_wanted() -> None:
    interface = thing("network-interface", kind="network-interface", inherits=True)

    def standing(state: StackState) -> Standing:
        ((_, what),) = judge([interface], {STACK: KnownStack(state=state, intended=INTENDED)})
        return what

    assert standing(StackState.PRESENT) is Standing.WANTED
    # It would hold the network.
    assert standing(StackState.REMOVED) is Standing.OURS


def test_what_no_row_knows_is_for_a_person() -> None:
    known = {STACK: KnownStack(state=StackState.REMOVED)}
    assert [what for _, what in judge([thing(stack="stk_2")], known)] == [Standing.STRANGE]


def test_of_two_that_should_be_one_the_one_that_was_made_is_wanted() -> None:
    known = {STACK: KnownStack(state=StackState.PRESENT, intended=INTENDED, made={SERVER: "2"})}
    judged = judge([thing(cloud_id="1"), thing(cloud_id="2")], known)
    assert {one.id: what for one, what in judged} == {
        "1": Standing.STRANGE,
        "2": Standing.WANTED,
    }


def test_what_was_made_when_a_stack_was_whole_is_somebody_elses() -> None:
    def standing(resource: str, *, after: timedelta) -> Standing:
        made = {SERVER: "2"}
        stack = KnownStack(state=StackState.REMOVED, made=made, whole_at=NOW - after)
        (_, what), *same = judge([thing(resource), thing(cloud_id="2")], {STACK: stack})
        # Whenever it was switched on.
        assert [one for _, one in same] == [Standing.OURS]
        return what

    # A console copies tags: "launch more like this".
    assert standing(SERVER, after=timedelta(hours=1)) is Standing.STRANGE
    assert standing("disk", after=timedelta(hours=1)) is Standing.STRANGE
    assert standing(SERVER, after=timedelta(minutes=-5)) is Standing.OURS
    # Ours are made of a server that has worked for long.
    assert standing(SNAPSHOT, after=timedelta(days=9)) is Standing.OURS


def test_what_was_just_made_may_not_be_known_yet() -> None:
    assert is_young(thing(), NOW + YOUNG_FOR / 2)
    assert not is_young(thing(), NOW + YOUNG_FOR)
