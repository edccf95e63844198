"""The operator makes users, whose tokens are shown once."""

import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.tokens import hash_of, is_well_formed
from infra.embedded.command import main
from infra.embedded.owner import ensure_owner
from infra.embedded.server import Part
from tests.infra.embedded.small_stack import SmallStack
from tests.servers import temporary_home


@pytest.fixture(scope="module")
def small() -> Iterator[SmallStack]:
    with temporary_home() as home:
        small = SmallStack(home)
        small.stack.up({Part.POSTGRESQL})
        with small.stack.administrator("bulkhead") as connection:
            ensure_owner(home, small.stack.database, connection, "http://127.0.0.1:1")
        yield small


@pytest.fixture(autouse=True)
def chosen_home(small: SmallStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKHEAD_HOME", str(small.home.directory))


@pytest.fixture
def name() -> str:
    return f"user-{uuid.uuid4().hex}"


def make(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Make a user and return the token that was printed."""
    capsys.readouterr()
    assert main(["user", *words]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["user", *words]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def role_of(small: SmallStack, token: str) -> tuple[object, object]:
    """Return what the API would find: the role, and whether the token has ended."""
    with small.stack.administrator("bulkhead") as connection:
        row = connection.execute(
            "SELECT role, expired FROM authenticate(%s, NULL, NULL)", (hash_of(token),)
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_a_user_has_a_token_of_which_the_hash_alone_is_kept(
    small: SmallStack, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    token = make(capsys, name, "--role", "owner")

    assert is_well_formed(token)
    assert role_of(small, token) == ("owner", False)
    assert small.one("SELECT count(*) FROM users WHERE name = %s", name) == 1


def test_what_the_operator_did_is_in_the_workspaces_audit_log(
    small: SmallStack, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make(capsys, name, "--workspace", "default", "--role", "admin")

    with small.stack.administrator("bulkhead") as connection:
        line = connection.execute(
            "SELECT actor_kind, actor_id, action, details ->> 'role' FROM audit_events"
            " WHERE details ->> 'user_id' = (SELECT id FROM users WHERE name = %s)"
            " AND workspace_id = (SELECT id FROM workspaces WHERE slug = 'default')",
            (name,),
        ).fetchone()
    assert line == ("system", "operator", "member.add", "admin")


def test_a_name_is_not_given_twice_unawares(
    small: SmallStack, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    token = make(capsys, name, "--role", "admin")

    assert "EXISTING=1" in refusal(capsys, name, "--role", "owner")
    assert role_of(small, token) == ("admin", False)


def test_another_token_ends_the_one_before_and_the_role_may_rise(
    small: SmallStack, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    before = make(capsys, name, "--role", "admin")
    token = make(capsys, name, "--role", "owner", "--existing")

    assert role_of(small, token) == ("owner", False)
    assert role_of(small, before)[1] is True
    assert "set-role" in refusal(capsys, name, "--role", "admin", "--existing")
    assert role_of(small, token) == ("owner", False)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("ada", "--workspace", "nowhere"), "no workspace nowhere"),
        (("nobody", "--existing"), "no user nobody"),
        (("owner", "--role", "owner", "--existing"), "the first owner"),
        (("two words",), "letters, digits"),
        (("x" * 101,), "letters, digits"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    assert reason in refusal(capsys, *words)


def test_a_token_can_go_into_a_private_file_instead(
    small: SmallStack, capsys: pytest.CaptureFixture[str], name: str, tmp_path: Path
) -> None:
    file = tmp_path / "ada.env"

    assert make(capsys, name, "--to", str(file)).endswith("which only you can read.")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert role_of(small, lines["BULKHEAD_API_TOKEN"]) == ("member", False)
    assert "exists" in refusal(capsys, f"{name}-2", "--to", str(file))


def test_a_file_is_not_left_behind_for_a_user_that_was_refused(
    capsys: pytest.CaptureFixture[str], name: str, tmp_path: Path
) -> None:
    refusal(capsys, name, "--workspace", "nowhere", "--to", str(tmp_path / "ada.env"))
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_was_never_started_has_nobody_to_make(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_home() as home:
        monkeypatch.setenv("BULKHEAD_HOME", str(home.directory))
        assert "make up" in refusal(capsys, "ada")
        assert not home.ports_file.exists()
