"""Adding a version: once for a key, whatever dies in the middle, and never two of one number."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretValue, VersionPlace, VersionState
from infra.database.records.secret import abandon_version
from infra.openbao.client import OpenBao
from infra.openbao.values import ValueStore
from infra.secret_store.settlement import Settlement
from tests.api.gate import JSON, Gate, a_key
from tests.api.keeper import VALUE, Keeper, error_of, new_keeper, ok

_WRITE = ValueStore.write


def _before(*_: object, audit_id: str | None) -> None:
    del audit_id
    raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "It does not answer.")


def _after(
    store: ValueStore, place: VersionPlace, value: SecretValue, *, audit_id: str | None
) -> None:
    _WRITE(store, place, value, audit_id=audit_id)
    raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "Its answer was lost.")


async def _add(keeper: Keeper, secret: JSON, key: str, value: str) -> httpx.Response:
    return await keeper.person.post(
        f"/v1/secrets/{secret['id']}/versions", {"value": value}, headers={"idempotency-key": key}
    )


def _versions(gate: Gate, keeper: Keeper) -> list[tuple[int, str]]:
    with gate.administrator() as connection:
        return connection.execute(
            "SELECT number, state FROM secret_versions WHERE workspace_id = %s ORDER BY id",
            (keeper.person.workspace,),
        ).fetchall()


@pytest.mark.parametrize("fault", [_before, _after])
async def test_the_same_request_again_goes_on_with_what_was_begun(
    gate: Gate, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    body, key = {"name": "n", "kind": "generic", "value": "v"}, {"idempotency-key": a_key()}
    with monkeypatch.context() as patch:
        patch.setattr(ValueStore, "write", fault)
        answer = await keeper.person.post("/v1/secrets", body, headers=key)
        error_of(answer, 503, "DEPENDENCY_UNAVAILABLE")
    assert ok(await keeper.person.get("/v1/secrets"))["data"] == []
    # Compared before anything else: it is another request, also while the first has no answer.
    other = await keeper.person.post("/v1/secrets", {**body, "value": "w"}, headers=key)
    error_of(other, 409, "CONFLICT")
    secret = ok(await keeper.person.post("/v1/secrets", body, headers=key), 201)
    assert secret["version_count"] == 1
    assert await keeper.value(secret) == "v"
    replayed = await keeper.person.post("/v1/secrets", body, headers=key)
    assert ok(replayed, 201) == secret
    assert replayed.headers["idempotency-replayed"] == "true"
    assert _versions(gate, keeper) == [(1, "enabled")]
    created = ("secret.create", "allowed", secret["id"])
    assert gate.audit(keeper.person.workspace).count(created) == 1


async def test_a_value_that_is_shown_without_its_request_was_brought_by_somebody(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    token = await keeper.token("secrets:write")
    path = f"/v1/secrets/{secret['id']}/versions"
    with monkeypatch.context() as patch:
        patch.setattr(ValueStore, "write", _after)
        error_of(await token.post(path, {"value": "v"}), 503, "DEPENDENCY_UNAVAILABLE")
    with gate.administrator() as connection:
        ((version_id,),) = connection.execute(
            "SELECT id FROM secret_versions WHERE secret_id = %s AND state = 'writing'",
            (secret["id"],),
        ).fetchall()
    workspace = keeper.person.workspace
    place = VersionPlace(workspace_id=workspace, secret_id=secret["id"], version_id=version_id)
    await _settle(gate, place)
    assert await keeper.value(secret, version_id) == "v"
    with gate.administrator() as connection:
        lines = connection.execute(
            "SELECT action, actor_id FROM audit_events WHERE details->>'version_id' = %s"
            " AND action <> 'secret_version.access' ORDER BY id",
            (version_id,),
        ).fetchall()
    actions = [action for action, _ in lines]
    assert actions == ["secret_version.create", "secret_version.settle"]
    assert lines[0][1] == token.user_id


async def _settle(gate: Gate, place: VersionPlace) -> None:
    openbao = OpenBao(gate.servers.openbao("worker"))
    database = gate.worker_database
    settlement = Settlement(database, database, openbao, settled_after=timedelta(0))
    assert await settlement.settle(place) is VersionState.ENABLED
    openbao.close()


async def test_a_key_with_another_value_is_a_conflict_for_everybody(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, key = await keeper.create(), a_key()
    first = ok(await _add(keeper, secret, key, "v"), 201)
    error_of(await _add(keeper, secret, key, "w"), 409, "CONFLICT")
    error_of(await _add(keeper, await keeper.create("other"), key, "v"), 409, "CONFLICT")
    colleague = Keeper(gate, gate.new_person(keeper.person.workspace))
    error_of(await _add(colleague, secret, key, "v"), 409, "CONFLICT")
    assert ok(await _add(keeper, secret, key, "v"), 201) == first
    assert (await keeper.get(secret))["version_count"] == 2


async def test_what_was_given_up_is_begun_anew_under_its_key(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    secret, key = await keeper.create(), a_key()
    with monkeypatch.context() as patch:
        patch.setattr(ValueStore, "write", _before)
        error_of(await _add(keeper, secret, key, "v"), 503)
    with gate.administrator() as connection:
        row = connection.execute(
            "SELECT id FROM secret_versions WHERE workspace_id = %s AND state = 'writing'",
            (keeper.person.workspace,),
        ).fetchone()
    assert row is not None
    place = VersionPlace(
        workspace_id=keeper.person.workspace, secret_id=secret["id"], version_id=row[0]
    )
    openbao = OpenBao(gate.servers.openbao("worker"))
    assert await asyncio.to_thread(openbao.values.seal, place)
    openbao.close()
    # Between the two the place takes nothing, and a value that comes too late is not shown.
    error_of(await _add(keeper, secret, key, "v"), 409)
    async with gate.worker_database.workspace(keeper.person.workspace) as session:
        assert await abandon_version(session, place)
    added = ok(await _add(keeper, secret, key, "v"), 201)
    assert added["version_number"] == 3
    assert await keeper.value(secret, "latest") == "v"
    assert _versions(gate, keeper) == [(1, "enabled"), (2, "abandoned"), (3, "enabled")]


async def test_fifty_at_once_have_dense_numbers(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    added = await asyncio.gather(*(keeper.add(secret, f"value {n}") for n in range(50)))
    assert sorted(version["version_number"] for version in added) == list(range(2, 52))
    body = await keeper.get(secret)
    assert (body["version_count"], body["version_aliases"]) == (51, {"current": 1})
    assert int(body["etag"]) == int(secret["etag"]) + 50
    await keeper.set_policy(accesses_per_minute=100000)
    for n, version in enumerate(added):
        assert await keeper.value(secret, version["id"]) == f"value {n}"
    assert await keeper.value(secret) == VALUE


async def test_duplicates_at_the_same_time_have_one_effect_and_one_answer(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, key = await keeper.create(), a_key()
    answers = await asyncio.gather(*(_add(keeper, secret, key, "v") for _ in range(16)))
    first = ok(answers[0], 201)
    assert all(ok(answer, 201) == first for answer in answers)
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert (await keeper.get(secret))["version_count"] == 2


async def test_one_of_two_secrets_of_a_name_is_made(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    body = {"name": "n", "kind": "generic", "value": "v"}
    answers = await asyncio.gather(*(keeper.person.post("/v1/secrets", body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


async def test_a_version_of_a_secret_that_goes_meanwhile_is_never_shown(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    await keeper.set_policy(force_allowed=True)
    secret = await keeper.create()
    begun, deleted = threading.Event(), threading.Event()

    def slowly(
        store: ValueStore, place: VersionPlace, value: SecretValue, *, audit_id: str | None
    ) -> None:
        begun.set()
        assert deleted.wait(10)
        _WRITE(store, place, value, audit_id=audit_id)

    monkeypatch.setattr(ValueStore, "write", slowly)
    adding = asyncio.create_task(_add(keeper, secret, a_key(), "v"))
    assert await asyncio.to_thread(begun.wait, 10)
    assert (await keeper.delete(secret, "?force=true")).status_code == 204
    deleted.set()
    error_of(await adding, 409, "ABORTED")
    assert _versions(gate, keeper)[-1] == (2, "writing")


async def test_a_workspace_without_a_place_says_so_and_writes_nothing_else(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.temporal.secret_space._PATIENCE_SECONDS", 1)
    person = gate.new_person()
    body, key = {"name": "n", "kind": "generic", "value": "v"}, {"idempotency-key": a_key()}
    error_of(await person.post("/v1/secrets", body, headers=key), 503, "DEPENDENCY_UNAVAILABLE")
    keeper = await new_keeper(gate, person)
    secret = ok(await person.post("/v1/secrets", body, headers=key), 201)
    assert await keeper.value(secret) == "v"
    unknown = {"id": new_id(Prefix.SECRET)}
    error_of(await _add(keeper, unknown, a_key(), "v"), 404)
