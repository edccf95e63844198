"""What is done with things that a dead run may have left: decided from two lists."""

from domain.cloud import SNAPSHOT, CloudResource, Provider, Tag
from infra.stacks.recovery import compare

DECLARED = {"network": "network", "subnet": "subnet", "server": "server"}


def resource(name: str, cloud_id: str, kind: str | None = None) -> CloudResource:
    return CloudResource(
        provider=Provider.HCLOUD,
        kind=kind or name,
        id=cloud_id,
        name=f"bh-x-{name}",
        tags={Tag.RESOURCE: name},
    )


def test_what_the_state_knows_is_left_alone() -> None:
    found = [resource("network", "1"), resource("subnet", "1-10.0.0.0/16")]

    unknown = compare(found, {"network": "1", "subnet": "1-10.0.0.0/16"}, DECLARED)

    assert (unknown.adoptable, unknown.superfluous) == ([], [])


def test_what_the_program_would_make_again_is_adopted() -> None:
    subnet = resource("subnet", "1-10.0.0.0/16")

    unknown = compare([resource("network", "1"), subnet], {"network": "1"}, DECLARED)

    assert (unknown.adoptable, unknown.superfluous) == ([subnet], [])


def test_a_second_one_of_what_the_state_knows_is_removed() -> None:
    second = resource("server", "2")

    unknown = compare([resource("server", "1"), second], {"server": "1"}, DECLARED)

    assert (unknown.adoptable, unknown.superfluous) == ([], [second])


def test_of_two_that_nobody_knows_neither_is_adopted() -> None:
    both = [resource("server", "1"), resource("server", "2")]

    unknown = compare(both, {}, DECLARED)

    assert (unknown.adoptable, unknown.superfluous) == ([], both)


def test_what_the_program_does_not_declare_is_removed() -> None:
    stranger = resource("volume", "9")

    assert compare([stranger], {}, DECLARED).superfluous == [stranger]


def test_a_servers_own_disk_stays_with_it_and_goes_without_it() -> None:
    disk = resource("server", "vol-1", kind="volume")

    assert compare([disk], {"server": "1"}, DECLARED).superfluous == []
    assert compare([disk], {}, DECLARED).superfluous == [disk]


def test_a_snapshot_is_not_the_programs_and_stays() -> None:
    snapshot = resource(SNAPSHOT, "7", kind="image")

    unknown = compare([snapshot], {}, DECLARED)

    assert (unknown.adoptable, unknown.superfluous) == ([], [])


def test_ids_with_and_without_their_path_are_the_same() -> None:
    found = [resource("server", "projects/p/zones/z/instances/bh-x-server")]

    unknown = compare(found, {"server": "bh-x-server"}, DECLARED)

    assert (unknown.adoptable, unknown.superfluous) == ([], [])
