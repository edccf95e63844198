"""Who belongs to a workspace, who changes that, and what ends with it."""

import asyncio

import httpx
import pytest

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from domain.tokens import TokenKind, new_token
from infra.embedded.new_users import NewUser, create_user
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import error_of, new_keeper, ok


def path_of(workspace: str, person: Person | None = None) -> str:
    path = f"/v1/workspaces/{workspace}/members"
    return path if person is None else f"{path}/{person.user_id}"


async def add(owner: Person, person: Person, role: Role = Role.MEMBER) -> JSON:
    body = {"user_id": person.user_id, "role": role}
    return ok(await owner.post(path_of(owner.workspace), body), 201)


async def roles(person: Person, workspace: str | None = None) -> dict[str, str]:
    """Return the role of each user that is listed."""
    listed = ok(await person.get(path_of(workspace or person.workspace)))["data"]
    return {member["user_id"]: member["role"] for member in listed}


async def set_role(owner: Person, person: Person, role: str) -> httpx.Response:
    return await owner.call("PATCH", path_of(owner.workspace, person), json={"role": role})


async def remove(actor: Person, workspace: str, person: Person) -> httpx.Response:
    return await actor.call("DELETE", path_of(workspace, person))


def bearer(person: Person, token: str) -> Person:
    return Person(person.user_id, person.workspace, token, person.client)


async def test_an_owner_adds_changes_and_removes_members_and_all_is_audited(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    member = await add(owner, person)
    assert await roles(owner) == {owner.user_id: "owner", person.user_id: "member"}
    assert ok(await set_role(owner, person, "admin")) == {**member, "role": "admin"}
    assert (await remove(owner, owner.workspace, person)).status_code == 204
    assert await roles(owner) == {owner.user_id: "owner"}
    assert gate.audit(owner.workspace) == [
        (f"member.{verb}", "allowed", member["id"]) for verb in ("add", "update", "remove")
    ]


async def test_who_was_added_acts_in_the_workspace_with_that_role(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    await add(owner, person, Role.ADMIN)
    there = {"akua-context": owner.workspace}
    made = await person.post("/v1/regions", {"name": "x"}, headers=there)
    assert made.status_code == 201
    ok(await set_role(owner, person, "member"))
    error_of(await person.post("/v1/regions", {"name": "y"}, headers=there), 403)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MEMBER])
async def test_who_is_no_owner_lists_the_members_and_changes_none(gate: Gate, role: Role) -> None:
    owner, other = gate.new_person(), gate.new_person()
    person = gate.new_person(owner.workspace, role)
    before = await roles(person)
    body = {"user_id": other.user_id, "role": "member"}
    error_of(await person.post(path_of(owner.workspace), body), 403)
    error_of(await set_role(person, person, "admin"), 403)
    error_of(await remove(person, owner.workspace, owner), 403)
    assert await roles(owner) == before == {owner.user_id: "owner", person.user_id: role}
    assert gate.audit(owner.workspace) == [
        (f"member.{verb}", "denied", owner.workspace) for verb in ("add", "update", "remove")
    ]


async def test_a_workspaces_token_makes_nobody_a_member(gate: Gate) -> None:
    owner, other = gate.new_person(), gate.new_person()
    token = ok(await owner.post("/v1/api_tokens", {"name": "x"}), 201)["token"]
    body = {"user_id": other.user_id, "role": "member"}
    error_of(await bearer(owner, token).post(path_of(owner.workspace), body), 403)


async def test_nobody_is_made_an_owner_by_a_request(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    await add(owner, person)
    body = {"user_id": person.user_id, "role": "owner"}
    error_of(await owner.post(path_of(owner.workspace), body), 422)
    error_of(await set_role(owner, person, "owner"), 422)
    assert (await roles(owner))[person.user_id] == "member"


async def test_who_is_a_member_or_no_user_at_all_is_not_added(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    await add(owner, person)
    again = {"user_id": person.user_id, "role": "admin"}
    error_of(await owner.post(path_of(owner.workspace), again), 409, "CONFLICT")
    unknown = {"user_id": new_id(Prefix.USER), "role": "admin"}
    error_of(await owner.post(path_of(owner.workspace), unknown), 422, "INVALID_ARGUMENT")
    assert (await roles(owner))[person.user_id] == "member"


async def test_the_last_owner_is_neither_removed_nor_made_less(gate: Gate) -> None:
    owner = gate.new_person()
    gate.new_person(owner.workspace, Role.ADMIN)
    error_of(await remove(owner, owner.workspace, owner), 409, "FAILED_PRECONDITION")
    error_of(await set_role(owner, owner, "admin"), 409, "FAILED_PRECONDITION")
    assert (await roles(owner))[owner.user_id] == "owner"


async def test_of_two_owners_who_remove_each_other_at_once_one_stays(gate: Gate) -> None:
    first = gate.new_person()
    second = gate.new_person(first.workspace)
    answers = await asyncio.gather(
        remove(first, first.workspace, second), remove(second, first.workspace, first)
    )
    assert 204 in {answer.status_code for answer in answers}
    with gate.administrator() as connection:
        left = connection.execute(
            "SELECT role FROM workspace_members WHERE workspace_id = %s", (first.workspace,)
        ).fetchall()
    assert left == [("owner",)]


@pytest.mark.parametrize("role", Role)
async def test_everybody_but_the_last_owner_may_leave(gate: Gate, role: Role) -> None:
    owner = gate.new_person()
    person = gate.new_person(owner.workspace, role)
    assert (await remove(person, owner.workspace, person)).status_code == 204
    assert await roles(owner) == {owner.user_id: "owner"}


async def test_a_removed_members_access_ends_with_the_next_request(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    await add(owner, person, Role.ADMIN)
    there = {"akua-context": owner.workspace}
    assert (await person.get("/v1/regions", headers=there)).status_code == 200
    await remove(owner, owner.workspace, person)
    error_of(await person.get("/v1/regions", headers=there), 403)
    error_of(await person.get(path_of(owner.workspace)), 404)
    assert (await person.get("/v1/regions")).status_code == 200


@pytest.mark.parametrize(("method", "body"), [("DELETE", None), ("PATCH", {"role": "member"})])
async def test_with_rights_go_the_workspace_tokens_that_came_of_them(
    gate: Gate, method: str, body: JSON | None
) -> None:
    owner = gate.new_person()
    person = gate.new_person(owner.workspace, Role.ADMIN)
    kept = ok(await owner.post("/v1/api_tokens", {"name": "kept"}), 201)
    first = ok(await person.post("/v1/api_tokens", {"name": "first"}), 201)
    made_by_first = bearer(person, first["token"])
    second = ok(await made_by_first.post("/v1/api_tokens", {"name": "second"}), 201)
    # Who made the second one is known from the audit log alone.
    await owner.call("DELETE", f"/v1/api_tokens/{first['id']}")

    changed = await owner.call(method, path_of(owner.workspace, person), json=body)
    assert changed.is_success, changed.text

    error_of(await bearer(person, second["token"]).get("/v1/regions"), 401)
    left = ok(await owner.get("/v1/api_tokens"))["data"]
    assert [token["id"] for token in left] == [kept["id"]]
    assert ("api_token.delete", "allowed", second["id"]) in gate.audit(owner.workspace)


async def test_the_role_that_a_member_has_already_changes_nothing(gate: Gate) -> None:
    owner = gate.new_person()
    person = gate.new_person(owner.workspace, Role.ADMIN)
    ok(await person.post("/v1/api_tokens", {"name": "x"}), 201)
    ok(await set_role(owner, person, "admin"))
    assert len(ok(await owner.get("/v1/api_tokens"))["data"]) == 1
    assert "member.update" not in {action for action, _, _ in gate.audit(owner.workspace)}


async def test_a_list_shows_no_membership_in_another_workspace(gate: Gate) -> None:
    person, other = gate.new_person(), gate.new_person()
    await add(other, person)
    assert await roles(person) == {person.user_id: "owner"}
    assert await roles(person, other.workspace) == {
        other.user_id: "owner",
        person.user_id: "member",
    }


async def test_the_same_key_has_one_effect_and_one_answer(gate: Gate) -> None:
    owner, person = gate.new_person(), gate.new_person()
    added, removed = {"idempotency-key": a_key()}, {"idempotency-key": a_key()}
    body = {"user_id": person.user_id, "role": "member"}
    answers = [await owner.post(path_of(owner.workspace), body, headers=added) for _ in range(2)]
    assert [ok(answer, 201) for answer in answers] == [answers[0].json()] * 2
    path = path_of(owner.workspace, person)
    gone = [await owner.call("DELETE", path, headers=removed) for _ in range(2)]
    assert [answer.status_code for answer in gone] == [204, 204]
    assert len(gate.audit(owner.workspace)) == 2


async def test_an_owner_whom_the_operator_made_approves_a_purge(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create("typed by hand")
    await keeper.delete(secret)
    path, confirmed = f"/v1/secrets/{secret['id']}", {"confirm_name": "typed by hand"}
    ok(await keeper.person.post(f"{path}:requestPurge", confirmed))
    error_of(await keeper.person.post(f"{path}:approvePurge", confirmed), 403)

    token = new_token(TokenKind.USER)
    workspace = keeper.person.workspace
    wanted = NewUser(name=f"ada-{a_key()}", workspace=workspace, role=Role.OWNER)
    made = await asyncio.to_thread(create_user, gate.settings.database, wanted, token)
    second = Person(made.user_id, workspace, token, gate.client)

    assert (await second.post(f"{path}:approvePurge", confirmed)).status_code == 204
    lines = gate.audit(workspace)
    assert ("secret.approve_purge", "allowed", secret["id"]) in lines
    assert "member.add" in {action for action, _, _ in lines}
