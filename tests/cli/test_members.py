"""Members of a workspace, from the terminal."""

import uuid
from pathlib import Path

import pytest

from domain.caller import Role
from domain.tokens import TokenKind, new_token
from infra.embedded.home import Home
from infra.embedded.new_users import NewUser, create_user
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings
from tests.cli.conftest import Bulkhead


@pytest.fixture
def name() -> str:
    return f"ada-{uuid.uuid4().hex}"


@pytest.fixture
def second(bulkhead: Bulkhead, stack_home: Home, tmp_path: Path, name: str) -> Bulkhead:
    """Another owner of the workspace, as `make user` makes one."""
    token = new_token(TokenKind.USER)
    workspace = bulkhead.environment["BULKHEAD_WORKSPACE"]
    stack = Stack(stack_home, EmbeddedSettings.model_construct(home=None), durable=False)
    create_user(stack.database, NewUser(name=name, workspace=workspace, role=Role.OWNER), token)
    folder = tmp_path / "second"
    folder.mkdir()
    url = bulkhead.json("whoami")["url"]
    return Bulkhead(folder, BULKHEAD_API_URL=url, BULKHEAD_API_TOKEN=token)


def test_members_are_listed_changed_and_removed_by_name(
    bulkhead: Bulkhead, second: Bulkhead, name: str
) -> None:
    listed = bulkhead.ok("members", "list")
    assert [line.split()[:2] for line in listed.splitlines()] == [
        ["NAME", "ROLE"],
        [name, "owner"],
        ["owner", "owner"],
    ]

    assert f"{name} is member now." in bulkhead.ok("members", "set-role", name, "--role", "member")
    refused = second.run("members", "remove", "owner", "--yes")
    assert refused.returncode == 4
    assert "needs the role owner" in refused.stderr
    bulkhead.ok("members", "remove", name, "--yes")

    assert [member["name"] for member in bulkhead.json("members", "list")] == ["owner"]
    assert second.run("members", "list").returncode == 4


def test_a_user_is_added_by_id_and_leaves_without_being_asked_twice(
    bulkhead: Bulkhead, second: Bulkhead, name: str
) -> None:
    user = next(m["user_id"] for m in bulkhead.json("members", "list") if m["name"] == name)
    assert second.run("members", "remove", name).returncode == 2
    assert second.json("members", "remove", name, "--yes") == {"user_id": user, "removed": True}

    added = bulkhead.json("members", "add", user, "--role", "admin")
    assert (added["name"], added["role"]) == (name, "admin")
    again = bulkhead.run("members", "add", user)
    assert again.returncode == 5
    assert "next: bulkhead members list" in again.stderr


def test_the_last_owner_stays_and_who_is_nobody_is_not_found(bulkhead: Bulkhead) -> None:
    last = bulkhead.run("members", "remove", "owner", "--yes")
    assert last.returncode == 5
    assert "last owner" in last.stderr
    nobody = bulkhead.run("members", "set-role", "nobody", "--role", "admin")
    assert nobody.returncode == 3
    assert "next: bulkhead members list" in nobody.stderr
    assert bulkhead.run("members", "set-role", "owner", "--role", "owner").returncode == 2


def test_where_several_workspaces_are_reached_it_is_said_which(bulkhead: Bulkhead) -> None:
    del bulkhead.environment["BULKHEAD_WORKSPACE"]
    result = bulkhead.run("members", "list")
    assert result.returncode == 2
    assert "--workspace" in result.stderr


def test_a_second_owner_approves_a_purge(bulkhead: Bulkhead, second: Bulkhead) -> None:
    secret = bulkhead.json("secrets", "create", "stripe", stdin="a value")["id"]
    bulkhead.ok("secrets", "delete", "stripe", "--yes")
    bulkhead.ok("secrets", "purge", "request", secret, "--yes")
    alone = bulkhead.run("secrets", "purge", "approve", secret, "--yes")
    assert alone.returncode == 4
    assert "next: bulkhead members list" in alone.stderr

    assert second.json("secrets", "purge", "approve", secret, "--yes") == {
        "id": secret,
        "purging": True,
    }
