"""Plaintext: who may read it, what is written down before, and what is never given out."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from domain.audit_budget import FULL_LINES
from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import secret_namespace_of, value_path_of
from domain.secret import VersionPlace
from domain.tokens import hash_of
from infra.openbao.marker import StoreMarker
from infra.openbao.values import ValueStore
from infra.secret_store.serving import ServingGate
from tests.api.gate import JSON, Gate, Person
from tests.api.keeper import VALUE, Keeper, error_of, new_keeper, ok

_ACCESS = "secret_version.access"


def _reads(gate: Gate, workspace: str) -> list[tuple[str, str]]:
    """Return outcome and resource of each attempt to read a value, oldest first."""
    return [
        (outcome, thing) for action, outcome, thing in gate.audit(workspace) if action == _ACCESS
    ]


async def _by_scope(person: Person, secret: JSON, version: JSON) -> dict[str, list[httpx.Response]]:
    path, headers = f"/v1/secrets/{secret['id']}", {"if-match": "0"}
    one = f"{path}/versions/{version['id']}"
    reference = f"{path}/references/install/a"
    rotation = {"rotator": "webhook_signing_key", "interval_seconds": 86400}
    created = {"name": f"by {person.user_id}", "kind": "generic", "value": "x"}
    return {
        "secrets:read": [
            await person.get("/v1/secrets"),
            await person.get(path),
            await person.get(f"{path}/versions"),
            await person.get(one),
            await person.get(f"{path}/references"),
            await person.get(f"{path}/rotation"),
        ],
        "secrets:write": [
            await person.post("/v1/secrets", created),
            await person.post(f"{path}/versions", {"value": "x"}),
            await person.call("PATCH", path, json={}, headers=headers),
            await person.call("DELETE", path, headers=headers),
            *[
                await person.post(f"{one}:{verb}", headers=headers)
                for verb in ("enable", "disable", "destroy")
            ],
            await person.post(f"{path}:undelete", headers=headers),
            await person.post(f"{path}:requestPurge", {"confirm_name": "x"}),
            await person.call("PUT", reference, json={}),
            await person.call("DELETE", reference),
            await person.call("PUT", f"{path}/rotation", json=rotation),
            await person.call("DELETE", f"{path}/rotation"),
            await person.post(f"{path}:rotate"),
        ],
        "secrets:access": [
            await person.post(f"{one}:access"),
            await person.post("/v1/secrets/unwrap", {"token": "x"}),
            await person.post(f"{reference}:acknowledge", {"version_number": 1}),
        ],
    }


def _is_refused(answer: httpx.Response, scope: str) -> bool:
    if answer.status_code != 403:
        return False
    return bool(answer.json()["errors"][0]["metadata"].get("required_scope") == scope)


@pytest.mark.parametrize("scope", ["", "secrets:read", "secrets:write", "secrets:access"])
async def test_no_scope_implies_another(gate: Gate, scope: str) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    version = (await keeper.versions(secret))[0]
    token = await keeper.token(*filter(None, [scope]))
    for needed, answers in (await _by_scope(token, secret, version)).items():
        for answer in answers:
            refused = _is_refused(answer, needed)
            assert refused is (needed != scope), f"{answer.request.url} {answer.text}"
    denied = [line for line in gate.audit(keeper.person.workspace) if line[1] == "denied"]
    assert len(denied) >= 9


async def test_a_refusal_is_audited_whatever_the_path_holds(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    token = await keeper.token()
    for odd in ("%00", "sec_%0a", "x" * 2000, "sec_" + "0" * 32):
        error_of(await token.get(f"/v1/secrets/{odd}"), 403, "PERMISSION_DENIED")
        error_of(await token.post(f"/v1/secrets/{odd}/versions/{odd[:99]}:access"), 403)
    denied = [line for line in gate.audit(keeper.person.workspace) if line[1] == "denied"]
    assert len(denied) == 8
    assert {line[2] for line in denied} == {keeper.person.workspace, "sec_" + "0" * 32}


async def test_a_number_names_no_version_and_is_told_what_does(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    answer = await keeper.person.post(f"/v1/secrets/{secret['id']}/versions/1:access")
    error = error_of(answer, 404, "NOT_FOUND")
    assert error["path"] == ["path", "vid"]
    assert "not by its number" in error["message"]
    assert "bulkhead secrets versions" in error["message"]


async def test_a_denial_says_why(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    version = await keeper.add(secret)
    path = f"/v1/secrets/{secret['id']}/versions/"
    ok(await keeper.switch(version, "disable"))
    for selector in (version["id"], new_id(Prefix.SECRET_VERSION)):
        assert (await keeper.person.post(f"{path}{selector}:access")).is_error
    error_of(await (await keeper.token()).post(f"{path}current:access"), 403)
    with gate.administrator() as connection:
        rows = connection.execute(
            "SELECT details->>'reason' FROM audit_events"
            " WHERE workspace_id = %s AND outcome = 'denied' ORDER BY id",
            (keeper.person.workspace,),
        ).fetchall()
    assert [why for (why,) in rows] == ["FAILED_PRECONDITION", "NOT_FOUND", "PERMISSION_DENIED"]


async def test_what_is_denied_again_and_again_does_not_fill_the_audit_log(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    token, other = await keeper.token(), await keeper.token()
    path = "/v1/secrets/{}/versions/current:access"
    for _ in range(40):
        error_of(await token.post(path.format(new_id(Prefix.SECRET))), 403)
    error_of(await other.post(path.format(new_id(Prefix.SECRET))), 403)
    with gate.administrator() as connection:
        rows = connection.execute(
            "SELECT token_id, details->>'times_within_the_hour' FROM audit_events"
            " WHERE workspace_id = %s AND outcome = 'denied' ORDER BY id",
            (keeper.person.workspace,),
        ).fetchall()
    told = [int(times) for who, times in rows if who == token.user_id]
    assert told == [*range(1, FULL_LINES + 1), 32]
    assert [int(times) for who, times in rows if who == other.user_id] == [1]


async def test_no_attempt_on_a_secret_hides_among_those_on_what_is_not_there(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    token = await keeper.token()
    secrets = [(await keeper.create(name))["id"] for name in ("one", "other")]
    path = "/v1/secrets/{}/versions/current:access"
    junk = [new_id(Prefix.SECRET) for _ in range(FULL_LINES + 1)]
    for secret_id in [*junk, *secrets, *secrets]:
        error_of(await token.post(path.format(secret_id)), 403)
    refused = [thing for outcome, thing in _reads(gate, keeper.person.workspace)]
    assert refused == [*junk[:FULL_LINES], *secrets, *secrets]


async def test_what_is_denied_again_and_again_of_one_secret_is_counted(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, token = await keeper.create(), await keeper.token()
    for _ in range(FULL_LINES + 2):
        error_of(await Keeper(gate, token).access(secret), 403)
    assert len(_reads(gate, keeper.person.workspace)) == FULL_LINES


@pytest.mark.parametrize("why", ["it has ended", "it belongs elsewhere"])
@pytest.mark.parametrize("whose", ["a workspace's", "a user's"])
async def test_what_a_token_tries_that_may_not_act_here_is_in_its_own_workspaces_log(
    gate: Gate, whose: str, why: str
) -> None:
    keeper, other = await new_keeper(gate), gate.new_person()
    secret = await keeper.create()
    holder = keeper.person if whose == "a user's" else await keeper.token("secrets:access")
    path, headers = f"/v1/secrets/{secret['id']}/versions/current:access", {}
    if why == "it has ended":
        with gate.administrator() as connection:
            for update in (
                "UPDATE api_tokens SET expires_at = now() WHERE token_hash = %s",
                "UPDATE user_tokens SET expires_at = now() WHERE token_hash = %s",
            ):
                connection.execute(update, (hash_of(holder.token),))
        refusal = (401, "UNAUTHENTICATED")
    else:
        headers = {"akua-context": other.workspace}
        refusal = (403, "PERMISSION_DENIED")
    for sent in (path, "/v1/secrets/unwrap"):
        body = {"token": "x"} if sent != path else None
        error_of(await holder.call("POST", sent, json=body, headers=headers), *refusal)
    attempts = [line for line in gate.audit(keeper.person.workspace) if line[1] == "denied"]
    workspace = keeper.person.workspace
    assert attempts == [
        (_ACCESS, "denied", secret["id"]),
        ("secret_version.unwrap", "denied", workspace),
    ]
    assert gate.audit(other.workspace) == []


async def test_users_have_the_scopes_of_their_role(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    for role, statuses in ((Role.ADMIN, (200, 201, 403)), (Role.MEMBER, (200, 403, 403))):
        person = gate.new_person(keeper.person.workspace, role)
        path = f"/v1/secrets/{secret['id']}"
        answers = (
            await person.get(path),
            await person.post(f"{path}/versions", {"value": "x"}),
            await person.post(f"{path}/versions/current:access"),
        )
        assert tuple(answer.status_code for answer in answers) == statuses, role


async def test_every_attempt_is_in_the_audit_log_and_nothing_may_be_kept(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    second = await keeper.add(secret)
    answer = await keeper.access(secret)
    assert answer.headers["cache-control"] == "no-store"
    assert ok(answer) == {"value": VALUE, "version_number": 1}
    error_of(await keeper.access(secret, "unheard_of"), 404)
    error_of(await keeper.access({"id": "../x"}), 404)
    error_of(await keeper.access({"id": new_id(Prefix.SECRET)}), 404)
    ok(await keeper.switch(second, "disable"))
    error_of(await keeper.access(secret, second["id"]), 409)
    ok(await keeper.switch(second, "destroy"))
    error_of(await keeper.access(secret, second["id"]), 410)
    reader = await keeper.token("secrets:read")
    error_of(await Keeper(gate, reader).access(secret), 403)
    await keeper.set_policy(accesses_per_minute=1)
    limited = await keeper.access(secret)
    error_of(limited, 429, "RATE_LIMITED")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    outcomes = [outcome for outcome, _ in _reads(gate, keeper.person.workspace)]
    assert outcomes == ["allowed", *["denied"] * 6]
    shown = (await keeper.versions(secret))[-1]
    assert shown["last_used_at"] > 0


@contextlib.contextmanager
def _full_audit_store(gate: Gate, workspace: str) -> Iterator[None]:
    """Have the database refuse this workspace's audit lines as a full disk does."""
    with gate.administrator() as connection:
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON audit_events FOR EACH ROW"
            f" WHEN (NEW.workspace_id = '{workspace}') EXECUTE FUNCTION full_disk()"
        )
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION full_disk CASCADE")


async def test_nothing_is_read_that_could_not_be_audited(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    read: list[object] = []
    monkeypatch.setattr(ValueStore, "read", lambda *arguments: read.append(arguments))
    monkeypatch.setattr(ValueStore, "wrap", lambda *arguments: read.append(arguments))
    with _full_audit_store(gate, keeper.person.workspace):
        for body in (None, {"wrap_ttl_seconds": 60}):
            error_of(await keeper.access(secret, body=body), 503, "DEPENDENCY_UNAVAILABLE")
        # A refusal that cannot be written down is no answer either.
        error_of(await keeper.access(secret, "unheard_of"), 503, "DEPENDENCY_UNAVAILABLE")
    assert read == []


async def test_a_read_only_database_is_answered_as_an_outage(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    with gate.administrator() as connection:
        setting = "ALTER ROLE bulkhead_api IN DATABASE bulkhead_api_tests"
        connection.execute(f"{setting} SET default_transaction_read_only = on")
        try:
            await gate.clients.database.close()
            error_of(await keeper.access(secret), 503, "DEPENDENCY_UNAVAILABLE")
            path = f"/v1/secrets/{secret['id']}/versions"
            answer = await keeper.person.post(path, {"value": "x"})
            error_of(answer, 503, "DEPENDENCY_UNAVAILABLE")
        finally:
            connection.execute(f"{setting} RESET default_transaction_read_only")
            await gate.clients.database.close()
    assert await keeper.value(secret) == VALUE


@contextlib.contextmanager
def _just_started(gate: Gate) -> Iterator[None]:
    """Have the API know as little of the secret store as after its start."""
    marker = gate.clients.openbao.marker
    gate.app.state.clients = replace(gate.clients, serving=ServingGate(marker, None))
    try:
        yield
    finally:
        gate.app.state.clients = gate.clients


async def test_reads_that_wait_for_a_store_that_hangs_keep_nobody_from_the_database(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    is_asked, is_over = threading.Event(), threading.Event()

    def hang(_: StoreMarker) -> int:
        is_asked.set()
        is_over.wait()
        raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "The store does not answer.")

    monkeypatch.setattr(StoreMarker, "read", hang)
    more_than_connections = 3 * gate.settings.database.pool_size
    with _just_started(gate):
        async with asyncio.TaskGroup() as reads:
            try:
                answers = [
                    reads.create_task(keeper.access(secret)) for _ in range(more_than_connections)
                ]
                await asyncio.to_thread(is_asked.wait)
                ok(await keeper.person.get("/v1/secrets"))
            finally:
                is_over.set()
    for answer in answers:
        error_of(answer.result(), 503, "DEPENDENCY_UNAVAILABLE")
    assert set(_reads(gate, keeper.person.workspace)) == {("denied", secret["id"])}


async def test_a_wrapped_value_is_given_out_once_and_in_its_workspace(gate: Gate) -> None:
    keeper, stranger = await new_keeper(gate), await new_keeper(gate)
    secret = await keeper.create()
    await keeper.add(secret)

    async def wrap(selector: str) -> JSON:
        wrapped = ok(await keeper.access(secret, selector, {"wrap_ttl_seconds": 60}))
        assert "value" not in wrapped
        return {"token": wrapped["wrapping_token"]}

    token = await wrap("latest")
    error_of(await stranger.person.post("/v1/secrets/unwrap", token), 404)
    writer = await keeper.token("secrets:write")
    error_of(await writer.post("/v1/secrets/unwrap", token), 403)
    opened = await keeper.person.post("/v1/secrets/unwrap", token)
    assert opened.headers["cache-control"] == "no-store"
    assert ok(opened) == {"value": "another value", "version_number": 2}
    error_of(await keeper.person.post("/v1/secrets/unwrap", token), 404)
    # What was disabled after it was wrapped stays closed.
    token = await wrap("latest")
    ok(await keeper.switch((await keeper.versions(secret))[0], "disable"))
    error_of(await keeper.person.post("/v1/secrets/unwrap", token), 409)
    for seconds in (0, 301, "60", 1.5):
        error_of(await keeper.access(secret, body={"wrap_ttl_seconds": seconds}), 400)


async def test_the_audit_line_of_a_value_that_was_wrapped_says_so(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    ok(await keeper.access(secret, body={"wrap_ttl_seconds": 60}))
    ok(await keeper.access(secret))
    query = f"action={_ACCESS}&resource_id={secret['id']}"
    lines = ok(await keeper.person.get(f"/v1/audit_events?{query}"))["data"]
    assert [line["details"].get("wrapped") for line in lines] == [None, True]


async def test_a_token_of_ours_opens_nothing_at_openbao(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    version = (await keeper.versions(secret))[0]
    stolen = await keeper.token("secrets:access", "secrets:read", "secrets:write")
    place = VersionPlace(
        workspace_id=keeper.person.workspace, secret_id=secret["id"], version_id=version["id"]
    )
    settings = gate.servers.openbao("api")
    async with httpx.AsyncClient(
        base_url=settings.address, verify=str(settings.ca_file) if settings.ca_file else True
    ) as client:
        for headers in (
            {"x-vault-token": stolen.token},
            {"authorization": f"Bearer {stolen.token}"},
        ):
            space = {"x-vault-namespace": secret_namespace_of(keeper.person.workspace)}
            for path in (f"secrets/data/{value_path_of(place)}", "secrets/metadata?list=true"):
                answer = await client.get(f"/v1/{path}", headers={**headers, **space})
                assert answer.status_code == 403, answer.text


async def test_reads_at_the_same_time_are_all_counted(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, other = await keeper.create(), await keeper.create("other")
    await keeper.set_policy(accesses_per_minute=10)
    answers = await asyncio.gather(*(keeper.access(secret) for _ in range(25)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 15
    ok(await keeper.access(other))
