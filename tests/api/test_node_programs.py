"""The programs of servers, after the platform has newer ones."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from infra.artifacts import ArtifactSet, ArtifactStore
from tests.api.gate import JSON, PROGRAM, Gate, store_program
from tests.api.own_server import OwnServer, csr_of, new_machine

_NEWER = b"#!/bin/sh\n# newer\n"


class Upgrade:
    """What an upgrade of the platform does to its programs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = ArtifactStore(folder)
        self.before = self._current()

    def run(self) -> ArtifactSet:
        program = self._folder / "newer"
        program.write_bytes(_NEWER)
        return self._store.ensure({"kubectl": program}, "linux/amd64")

    def undo(self) -> None:
        store_program(self._folder)
        assert self._current().id == self.before.id

    def _current(self) -> ArtifactSet:
        found = self._store.current("linux/amd64")
        assert found is not None
        return found


@pytest.fixture(scope="module")
async def joined(gate: Gate) -> tuple[OwnServer, JSON]:
    person = gate.new_person()
    return await new_machine(gate, person, await gate.new_cluster_with_authorities(person))


@pytest.fixture
def upgrade(gate: Gate, joined: tuple[OwnServer, JSON]) -> Iterator[Upgrade]:
    del joined  # The server joined before the upgrade.
    assert gate.settings.api.artifacts_dir is not None
    made = Upgrade(gate.settings.api.artifacts_dir)
    yield made
    made.undo()


async def _told(server: OwnServer) -> tuple[str, str]:
    """Resume; return the set and the program that the server is told of."""
    answer = await server.signed("resume", {"csr": csr_of(server.key)})
    assert answer.status_code == 200, answer.text
    (program,) = answer.json()["artifacts"]
    return answer.json()["artifact_set"], program["sha256"]


async def test_a_server_that_resumes_keeps_its_programs_and_can_get_them_again(
    gate: Gate, joined: tuple[OwnServer, JSON], upgrade: Upgrade
) -> None:
    server, machine = joined
    upgrade.run()
    assert await _told(server) == (upgrade.before.id, sha256(PROGRAM).hexdigest())
    again = await gate.client.get(f"/v1/artifacts/{sha256(PROGRAM).hexdigest()}")
    assert (again.status_code, again.content) == (200, PROGRAM)
    assert _set_of(gate, machine) == upgrade.before.id


async def test_a_server_whose_programs_are_not_kept_any_more_gets_the_newest(
    gate: Gate, joined: tuple[OwnServer, JSON], upgrade: Upgrade
) -> None:
    server, machine = joined
    newer = upgrade.run()
    change = "UPDATE machines SET artifact_set = %s WHERE id = %s"
    with gate.administrator() as connection:
        connection.execute(change, ("0" * 64, machine["id"]))
    try:
        assert await _told(server) == (newer.id, sha256(_NEWER).hexdigest())
        assert _set_of(gate, machine) == newer.id
    finally:
        with gate.administrator() as connection:
            connection.execute(change, (upgrade.before.id, machine["id"]))


def _set_of(gate: Gate, machine: JSON) -> str:
    with gate.administrator() as connection:
        found = connection.execute(
            "SELECT artifact_set FROM machines WHERE id = %s", (machine["id"],)
        ).fetchone()
    assert found is not None
    return str(found[0])
