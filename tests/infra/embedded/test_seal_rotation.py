"""The seal key is replaced, whatever dies on the way."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from domain.secret import VersionPlace
from infra.embedded import seal_rotation
from infra.embedded.backup import back_up
from infra.embedded.ports import Ports
from infra.embedded.seal_rotation import rotate_seal_key
from infra.embedded.server import Part, Server, start
from infra.openbao.seal import Stage, id_of, ids_in_snapshot
from infra.supervisor.program import ProcessInfo
from infra.supervisor.supervisor import Supervisor
from tests.infra.embedded.small_stack import SmallStack
from tests.servers import temporary_home

# The moments between the steps of a rotation; at the one after them it has come to its end.
MOMENTS = 9
# With both keys before they were used, between the renames, and with the new key not yet proven.
SAMPLE = {2, 5, 7}


@pytest.fixture(scope="module")
def small() -> Iterator[SmallStack]:
    with temporary_home() as home:
        small = SmallStack(home)
        small.up()
        yield small


@pytest.fixture(scope="module")
def place(small: SmallStack) -> VersionPlace:
    return small.write(small.make_workspace(), b"sealed")


def wrapped_with(small: SmallStack, directory: Path) -> set[str]:
    snapshot = directory / "snapshot"
    with small.stack.operator() as operator:
        operator.save_snapshot(snapshot)
    return ids_in_snapshot(snapshot)


def hasty_at_first() -> Callable[..., ProcessInfo]:
    """Return a `start` that gives up soon, once: what cannot come need not be waited for."""
    patience = iter([5.0])

    def hasty(supervisor: Supervisor, server: Server, ports: Ports, seconds: float) -> ProcessInfo:
        return start(supervisor, server, ports, next(patience, seconds))

    return hasty


def test_afterwards_the_old_key_is_gone_and_opens_nothing(
    small: SmallStack, place: VersionPlace, tmp_path: Path
) -> None:
    (old,) = small.keys().values()
    for _ in range(2):
        before = small.keys()
        rotated = rotate_seal_key(small.stack)
        (new,) = small.keys().values()
        assert small.keys().keys() == {"seal.key"}
        assert rotated.previous_id == id_of(before["seal.key"])
        assert rotated.current_id == id_of(new)
        assert wrapped_with(small, tmp_path) == {id_of(new)}
        assert small.read(place) == b"sealed"
    assert old != new


@pytest.mark.parametrize(
    "moment",
    [
        moment if moment in SAMPLE else pytest.param(moment, marks=pytest.mark.full)
        for moment in range(1, MOMENTS + 2)
    ],
)
def test_killed_at_any_moment_the_store_opens_and_the_next_attempt_finishes(
    small: SmallStack, place: VersionPlace, moment: int, tmp_path: Path
) -> None:
    before = small.keys()
    code = small.run_and_die(moment, "rotate")
    assert code == (0 if moment > MOMENTS else -signal.SIGKILL)
    # Another start at this moment: with the keys that are there, the store opens.
    small.stack.supervisor.restart(Part.OPENBAO, Part.OPENBAO, "KILL")
    small.up()
    assert small.read(place) == b"sealed"
    rotate_seal_key(small.stack)
    after = small.keys()
    assert after.keys() == {"seal.key"}
    assert after["seal.key"] not in before.values()
    assert wrapped_with(small, tmp_path) == {id_of(after["seal.key"])}
    assert small.read(place) == b"sealed"


def test_a_new_key_that_does_not_open_the_store_is_not_kept_alone(
    small: SmallStack, place: VersionPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = small.openbao.seal_keys
    keys.begin()
    # As if the store had been wrapped anew, which it was not.
    keys.prove()
    with monkeypatch.context() as patch:
        patch.setattr(seal_rotation, "start", hasty_at_first())
        with pytest.raises(BulkheadError) as caught:
            rotate_seal_key(small.stack)
    assert caught.value.reason is Reason.INTERNAL
    assert small.openbao.seal_keys.stage is Stage.BOTH
    assert small.read(place) == b"sealed"
    rotate_seal_key(small.stack)
    assert small.keys().keys() == {"seal.key"}
    assert small.read(place) == b"sealed"


def test_no_backup_is_made_while_two_keys_are_needed(small: SmallStack, tmp_path: Path) -> None:
    small.openbao.seal_keys.begin()
    with pytest.raises(BulkheadError, match="rotate-seal-key") as caught:
        back_up(small.stack, tmp_path / "backup", seal_key_to=None)
    assert caught.value.reason is Reason.FAILED_PRECONDITION
    assert list(tmp_path.iterdir()) == []
    rotate_seal_key(small.stack)
