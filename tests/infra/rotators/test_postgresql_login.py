import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.outbound import Outbound
from infra.rotators.postgresql_login import PostgresqlLogin
from infra.settings import OutboundSettings
from tests.infra.https_server import new_authority
from tests.infra.rotators.logins import CANARIES, OTHER_PASSWORD, Logins, login_value, two_logins
from tests.infra.rotators.rotations import KnownValues, fails, new_rotation
from tests.infra.rotators.tls_entrance import TlsEntrance
from tests.servers import Servers


@pytest.fixture
def logins(servers: Servers) -> Iterator[Logins]:
    with two_logins(servers) as found:
        yield found


@pytest.fixture
def previous(logins: Logins) -> SecretValue:
    return login_value(logins.b, OTHER_PASSWORD)


async def test_two_rotations_take_turns_and_every_step_may_be_repeated(logins: Logins) -> None:
    current = logins.current
    for expected in (logins.b, logins.a):
        rotation, rotator = logins.rotation(), logins.rotator
        pending = [await rotator.create(rotation, current) for _ in range(2)][-1]
        assert json.loads(pending.data)["username"] == expected
        assert not logins.accepts(pending)
        for _ in range(2):
            await rotator.set(rotation, pending, current)
            assert logins.accepts(pending)
            assert logins.accepts(current)
        for _ in range(2):
            await rotator.test(rotation, pending)
        for _ in range(2):
            await rotator.retire(rotation, current, pending)
            assert logins.accepts(pending)
            assert not logins.accepts(current)
        # For the next turn, in which the user that was retired gets a password again.
        current = pending


@pytest.mark.parametrize("reached", ["nothing", "create", "set", "test"])
async def test_an_undo_leaves_the_current_value_alone_and_the_new_one_refused(
    logins: Logins, previous: SecretValue, reached: str
) -> None:
    rotation, rotator = logins.rotation(), logins.rotator
    pending = None if reached == "nothing" else await rotator.create(rotation, logins.current)
    if pending is not None and reached in {"set", "test"}:
        await rotator.set(rotation, pending, logins.current)
        if reached == "test":
            await rotator.test(rotation, pending)
    for _ in range(2):
        await rotator.unset(rotation, pending, logins.current)
    assert logins.accepts(logins.current)
    assert pending is None or not logins.accepts(pending)
    # Whoever still uses the previous value is not cut off by a rotation that changed nothing.
    assert logins.accepts(previous) == (reached in {"nothing", "create"})


@pytest.mark.parametrize("reached", ["create", "set", "test"])
async def test_a_previous_value_that_was_put_back_works_and_the_new_one_does_not(
    logins: Logins, previous: SecretValue, reached: str
) -> None:
    rotation, rotator = logins.rotation(), logins.rotator
    pending = await rotator.create(rotation, logins.current)
    for _ in range(2):
        assert await rotator.would_end(rotation, pending, previous)
    if reached != "create":
        await rotator.set(rotation, pending, logins.current)
    for _ in range(2):
        await rotator.put_back(rotation, pending, previous)
    await rotator.unset(rotation, pending, logins.current)
    assert logins.accepts(logins.current)
    assert logins.accepts(previous)
    assert not logins.accepts(pending)


async def test_a_password_that_somebody_gave_meanwhile_is_not_replaced_by_the_previous_one(
    logins: Logins, previous: SecretValue
) -> None:
    rotation, rotator = logins.rotation(), logins.rotator
    pending = await rotator.create(rotation, logins.current)
    await rotator.set(rotation, pending, logins.current)
    by_hand = login_value(logins.b, "canary-by-hand")
    with logins.servers.administrator("postgres") as administrator:
        administrator.execute(
            sql.SQL("ALTER ROLE {} PASSWORD 'canary-by-hand'").format(sql.Identifier(logins.b))
        )
    await rotator.put_back(rotation, pending, previous)
    assert logins.accepts(by_hand)
    assert not logins.accepts(previous)


async def test_only_a_login_that_works_and_gets_a_new_password_is_ended_by_it(
    logins: Logins,
) -> None:
    rotation, rotator = logins.rotation(), logins.rotator
    pending = await rotator.create(rotation, logins.current)
    for other in (
        logins.current,
        login_value(logins.b, "canary-wrong"),
        SecretValue.of_text("canary: no login"),
    ):
        assert not await rotator.would_end(rotation, pending, other)
    closed = logins.rotation(port=1)
    with fails(Reason.DEPENDENCY_UNAVAILABLE, *CANARIES):
        await rotator.would_end(closed, pending, login_value(logins.b, OTHER_PASSWORD))


async def test_a_server_that_does_not_know_the_current_value_is_not_changed(
    logins: Logins, previous: SecretValue
) -> None:
    rotation, rotator = logins.rotation(), logins.rotator
    stranger = login_value(logins.a, "canary-of-another-server")
    pending = await rotator.create(rotation, stranger)
    with fails(Reason.CREDENTIAL_REJECTED, *CANARIES, "canary-of-another-server"):
        await rotator.set(rotation, pending, stranger)
    assert logins.accepts(previous)
    with fails(Reason.CREDENTIAL_REJECTED, json.loads(pending.data)["password"]):
        await rotator.test(rotation, pending)


async def test_the_password_is_not_in_the_servers_log_even_when_it_logs_everything(
    logins: Logins,
) -> None:
    with logins.servers.administrator("postgres") as administrator:
        administrator.execute(
            sql.SQL("ALTER ROLE {} SET log_statement = 'all'").format(
                sql.Identifier(logins.administrator)
            )
        )
    rotation = logins.rotation()
    pending = await logins.rotator.create(rotation, logins.current)
    before = _log_sizes(logins)
    await logins.rotator.set(rotation, pending, logins.current)
    # What the server says goes through supervisord to its log.
    async with asyncio.timeout(60):
        while b"SCRAM-SHA-256$4096" not in _logged_since(logins, before):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    logged = _logged_since(logins, before)
    assert json.loads(pending.data)["password"].encode() not in logged


def _log_sizes(logins: Logins) -> dict[Path, int]:
    return {path: path.stat().st_size for path in logins.servers.home.rglob("*.log*")}


def _logged_since(logins: Logins, before: dict[Path, int]) -> bytes:
    return b"".join(
        _read_from(path, before.get(path, 0)) for path, size in _log_sizes(logins).items() if size
    )


def _read_from(path: Path, position: int) -> bytes:
    """Return what was written to a log since; one that is rotated meanwhile is read whole."""
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        file.seek(position if path.stat().st_size >= position else 0)
        return file.read()


async def test_connections_of_a_retired_user_end_where_the_settings_say_so(
    logins: Logins, previous: SecretValue
) -> None:
    with logins.servers.administrator("postgres") as administrator:
        administrator.execute(
            sql.SQL("GRANT pg_signal_backend TO {}").format(sql.Identifier(logins.administrator))
        )
    for end in (False, True):
        with logins.connect(login_value(logins.a, "canary-first-password")) as connection:
            rotation = logins.rotation(terminate_sessions=end)
            await logins.rotator.retire(rotation, logins.current, previous)
            if end:
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT 1")
            else:
                connection.execute("SELECT 1")
                with logins.servers.administrator("postgres") as administrator:
                    administrator.execute(
                        sql.SQL("ALTER ROLE {} PASSWORD 'canary-first-password'").format(
                            sql.Identifier(logins.a)
                        )
                    )


@pytest.mark.parametrize("power", ["SUPERUSER", "CREATEROLE", "BYPASSRLS", "REPLICATION"])
async def test_a_user_with_power_over_the_server_is_not_rotated(
    logins: Logins, previous: SecretValue, power: str
) -> None:
    with logins.servers.administrator("postgres") as administrator:
        administrator.execute(
            sql.SQL("ALTER ROLE {} {}").format(
                sql.Identifier(logins.b),
                sql.SQL(power),
            )
        )
    rotation = logins.rotation()
    pending = await logins.rotator.create(rotation, logins.current)
    with fails(Reason.FAILED_PRECONDITION, *CANARIES):
        await logins.rotator.set(rotation, pending, logins.current)
    assert logins.accepts(previous)
    with fails(Reason.FAILED_PRECONDITION, *CANARIES):
        await logins.rotator.test(rotation, previous)


async def test_a_user_that_can_become_a_powerful_role_is_not_rotated(logins: Logins) -> None:
    with logins.servers.administrator("postgres") as administrator:
        administrator.execute(
            sql.SQL("GRANT {} TO {} WITH INHERIT FALSE").format(
                sql.Identifier(logins.powerful), sql.Identifier(logins.b)
            )
        )
    rotation = logins.rotation()
    pending = await logins.rotator.create(rotation, logins.current)
    with fails(Reason.FAILED_PRECONDITION, *CANARIES):
        await logins.rotator.set(rotation, pending, logins.current)


async def test_an_administrator_without_the_right_to_it_changes_nothing(
    logins: Logins, previous: SecretValue
) -> None:
    with logins.servers.administrator("postgres") as administrator:
        administrator.execute(
            sql.SQL("ALTER ROLE {} NOCREATEROLE").format(sql.Identifier(logins.administrator))
        )
    rotation = logins.rotation()
    pending = await logins.rotator.create(rotation, logins.current)
    with fails(Reason.FAILED_PRECONDITION, *CANARIES, "SCRAM"):
        await logins.rotator.set(rotation, pending, logins.current)
    assert logins.accepts(previous)


async def test_the_administrator_cannot_be_one_of_the_rotated_users(
    logins: Logins, previous: SecretValue
) -> None:
    own = logins.values.add(previous.text())
    rotation = logins.rotation(admin_secret_id=own)
    pending = await logins.rotator.create(rotation, logins.current)
    with fails(Reason.FAILED_PRECONDITION, *CANARIES):
        await logins.rotator.set(rotation, pending, logins.current)
    secret_id = new_id(Prefix.SECRET)
    with pytest.raises(BulkheadError) as refused:
        PostgresqlLogin.check_settings(secret_id, {**logins.settings, "admin_secret_id": secret_id})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"port": 1}, Reason.DEPENDENCY_UNAVAILABLE),
        ({"database": "no_such_database"}, Reason.FAILED_PRECONDITION),
        ({"host": "169.254.169.254"}, Reason.FAILED_PRECONDITION),
        ({"host": "1.1.1.1"}, Reason.FAILED_PRECONDITION),  # public, and without TLS
    ],
    ids=["down", "no database", "metadata", "clear text"],
)
async def test_a_target_that_cannot_be_reached_is_told_from_one_that_may_not_be(
    logins: Logins, settings: dict[str, Any], reason: Reason
) -> None:
    rotation = logins.rotation(**settings)
    pending = await logins.rotator.create(rotation, logins.current)
    with fails(reason, *CANARIES):
        await logins.rotator.set(rotation, pending, logins.current)


async def test_tls_accepts_the_server_of_the_named_authority_alone(
    logins: Logins, tls_entrance: TlsEntrance
) -> None:
    def rotation_with(**settings: object) -> Rotation:
        return logins.rotation(**{"tls": "verify-full", "port": tls_entrance.port, **settings})

    ca = tls_entrance.authority.ca
    await logins.rotator.test(rotation_with(ca=ca), logins.current)
    strangers: list[dict[str, Any]] = [
        {"ca": new_authority("localhost").ca},
        {"ca": None},
        {"ca": ca, "port": logins.servers.database.port},  # answers without TLS
        {"ca": ca, "host": "127.0.0.1"},  # not a name of its certificate
    ]
    for settings in strangers:
        with fails(Reason.DEPENDENCY_UNAVAILABLE, *CANARIES):
            await logins.rotator.test(rotation_with(**settings), logins.current)


@pytest.mark.parametrize(
    "value",
    [
        "canary",
        "[]",
        '{"username": "canary"}',
        '{"username": "canary", "password": 7}',
        '{"username": "canary", "password": "canary", "host": "canary"}',
        '{"username": "canary", "password": "canary"}',
        '{"username": "a", "password": "canary\\ud800"}',
        '{"username": "a", "password": "canary\\u0000"}',
        "[" * 60_000,
    ],
    ids=range(9),
)
async def test_a_value_that_is_no_login_of_the_two_users_is_refused_without_being_told(
    value: str,
) -> None:
    closed = PostgresqlLogin(Outbound(OutboundSettings()), KnownValues())
    settings = {
        "host": "localhost",
        "user_a": "a",
        "user_b": "b",
        "admin_secret_id": new_id(Prefix.SECRET),
    }
    with fails(Reason.FAILED_PRECONDITION, "canary"):
        await closed.create(new_rotation(settings), SecretValue.of_text(value))


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "-c"},
        {"host": "a b"},
        {"port": 0},
        {"port": "5432"},
        {"tls": "prefer"},
        {"ca": "canary"},
        {"user_b": "a"},
        {"user_a": ""},
        {"admin_secret_id": "canary"},
        {"password": "canary"},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_without_being_told(wrong: dict[str, Any]) -> None:
    settings = {
        "host": "db.example.com",
        "user_a": "a",
        "user_b": "b",
        "admin_secret_id": new_id(Prefix.SECRET),
    }
    assert PostgresqlLogin.check_settings(new_id(Prefix.SECRET), settings)["tls"] == "verify-full"
    with fails(Reason.INVALID_ARGUMENT, "canary"):
        PostgresqlLogin.check_settings(new_id(Prefix.SECRET), {**settings, **wrong})
