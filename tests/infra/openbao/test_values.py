"""Values are written once, read under an audit id, and proven gone."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import hvac
import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import secret_namespace_of, value_path_of
from domain.secret import MAXIMUM_VALUE_BYTES, SecretValue, ValueEncoding, VersionPlace
from infra.openbao.client import OpenBao
from infra.openbao.policies import WORKER
from infra.openbao.session import OpenBaoSession
from infra.openbao.values import Presence, ValueStore
from tests.servers import Servers

_VALUE = SecretValue(b"first value")
_OTHER = SecretValue(b"another value")


@pytest.fixture
def values(session: OpenBaoSession) -> ValueStore:
    return ValueStore(session)


@pytest.fixture
def worker_values(servers: Servers) -> Iterator[ValueStore]:
    session = OpenBaoSession(servers.openbao("worker"), WORKER)
    yield ValueStore(session)
    session.close()


@pytest.fixture
def place(openbao: OpenBao) -> VersionPlace:
    workspace_id = new_id(Prefix.WORKSPACE)
    openbao.ensure_secret_space(workspace_id)
    return _place_in(workspace_id)


def test_any_bytes_come_back_as_they_were(values: ValueStore, place: VersionPlace) -> None:
    value = SecretValue(
        bytes(range(256)) + os.urandom(MAXIMUM_VALUE_BYTES - 256), ValueEncoding.BASE64
    )
    values.write(place, value)
    assert values.read(place, new_id(Prefix.AUDIT_EVENT)) == value


def test_a_value_is_written_once_and_the_same_value_again_is_fine(
    values: ValueStore, worker_values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    values.write(place, _VALUE, audit_id="aud_x")
    worker_values.write(place, _VALUE, audit_id="aud_x")
    assert _reason_of(lambda: values.write(place, _OTHER, audit_id="aud_x")) is Reason.CONFLICT
    assert values.read(place, "aud_x") == _VALUE


def test_without_an_audit_line_no_value_is_read_to_compare_it(
    values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    assert _reason_of(lambda: values.write(place, _VALUE)) is Reason.DEPENDENCY_UNAVAILABLE


def test_what_is_at_a_place_is_told_without_reading_it(
    values: ValueStore, worker_values: ValueStore, place: VersionPlace
) -> None:
    assert values.look(place) is Presence.ABSENT
    values.write(place, _VALUE)
    assert values.look(place) is worker_values.look(place) is Presence.VALUE
    values.destroy(place)
    assert values.look(place) is Presence.GONE
    worker_values.purge(place)
    assert values.look(place) is Presence.ABSENT


def test_of_two_writers_at_once_one_value_stays(values: ValueStore, place: VersionPlace) -> None:
    def attempt(number: int) -> Reason | None:
        try:
            values.write(place, SecretValue(str(number).encode()), audit_id="aud_x")
        except BulkheadError as error:
            return error.reason
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert sorted(outcomes, key=str) == [Reason.CONFLICT] * 7 + [None]


def test_a_destroyed_value_is_gone_and_its_place_stays_taken(
    values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    values.destroy(place)
    values.destroy(place)
    assert _reason_of(lambda: values.read(place, "aud_x")) is Reason.NOT_FOUND
    assert _reason_of(lambda: values.write(place, _VALUE)) is Reason.CONFLICT


def test_a_sealed_place_takes_no_value_and_a_written_one_cannot_be_sealed(
    values: ValueStore, worker_values: ValueStore, place: VersionPlace
) -> None:
    assert worker_values.seal(place)
    assert worker_values.seal(place)
    assert _reason_of(lambda: values.write(place, _VALUE)) is Reason.CONFLICT
    assert _reason_of(lambda: values.read(place, "aud_x")) is Reason.NOT_FOUND
    written = _place_in(place.workspace_id)
    values.write(written, _VALUE)
    assert not worker_values.seal(written)
    assert values.read(written, "aud_x") == _VALUE


def test_purging_leaves_nothing_to_list(
    values: ValueStore, worker_values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    assert len(worker_values.names(place.workspace_id)) == 1
    worker_values.purge(place)
    worker_values.purge(place)
    assert worker_values.names(place.workspace_id) == []


def test_a_wrapped_value_is_had_once_and_says_which_version_it_is(
    values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    token = values.wrap(place, "aud_x", 60)
    assert values.place_of_wrapped(place.workspace_id, token) == place
    assert values.unwrap(place.workspace_id, token, "aud_x") == _VALUE
    again = partial(values.unwrap, place.workspace_id, token, "aud_x")
    assert _reason_of(again) is Reason.NOT_FOUND


def test_an_unwrap_is_in_openbaos_log_with_the_id_of_its_audit_line(
    servers: Servers, values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    token, audit_id = values.wrap(place, "aud_x", 60), new_id(Prefix.AUDIT_EVENT)
    values.unwrap(place.workspace_id, token, audit_id)
    logs = servers.stack.secret_store.audit_log_dirs[0].glob("*.log")
    lines = [line for log in logs for line in log.read_text().splitlines() if audit_id in line]
    assert {json.loads(line)["request"]["path"] for line in lines} == {"sys/wrapping/unwrap"}


def test_a_process_may_neither_write_over_a_value_nor_read_it_from_the_root_namespace(
    servers: Servers, session: OpenBaoSession, values: ValueStore, place: VersionPlace
) -> None:
    values.write(place, _VALUE)
    namespace = secret_namespace_of(place.workspace_id)
    path = f"secrets/data/{value_path_of(place)}"

    def overwrite(client: hvac.Client) -> object:
        return client.write_data(path, data={"data": {"v": "x"}, "options": {"cas": 1}})

    assert (
        _reason_of(
            lambda: session.call("x", overwrite, namespace=namespace, login_namespace=namespace)
        )
        is Reason.DEPENDENCY_UNAVAILABLE
    )
    worker = OpenBaoSession(servers.openbao("worker"), WORKER)
    for reader in (worker, session):
        assert (
            _reason_of(lambda: reader.call("x", lambda c: c.read(path), namespace=namespace))  # noqa: B023
            is Reason.DEPENDENCY_UNAVAILABLE
        )
    worker.close()


def _place_in(workspace_id: str) -> VersionPlace:
    return VersionPlace(
        workspace_id=workspace_id,
        secret_id=new_id(Prefix.SECRET),
        version_id=new_id(Prefix.SECRET_VERSION),
    )


def _reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(BulkheadError) as caught:
        call()
    return caught.value.reason
