"""The functions through which our roles reach what they cannot see."""

import psycopg
import pytest
from psycopg import errors, sql

from domain.identifiers import Prefix, new_id
from infra.database.engine import DatabaseRole
from tests.infra.database.tenants import Tenant, Tenants

GIBIBYTE = 1024**3


def authenticate(
    connection: psycopg.Connection,
    token: bytes,
    context: str | None = None,
    resource: str | None = None,
) -> tuple[str, str | None, str | None] | None:
    """Return the kind, the workspace and the role that a credential gets."""
    found = connection.execute(
        "SELECT kind, workspace_id, role FROM authenticate(%s, %s, %s)", (token, context, resource)
    ).fetchone()
    return None if found is None else (found[0], found[1], found[2])


@pytest.fixture
def pair(tenants: Tenants) -> tuple[Tenant, Tenant]:
    return tenants.new_tenant(), tenants.new_tenant()


def test_a_credential_is_bound_to_the_workspace_in_which_it_acts(
    tenants: Tenants, pair: tuple[Tenant, Tenant]
) -> None:
    mine, other = pair
    cases = [
        (mine.api_token, None, None, ("api_token", mine.workspace, "admin")),
        (mine.api_token, mine.workspace, None, ("api_token", mine.workspace, "admin")),
        (mine.api_token, None, other.cluster, ("api_token", mine.workspace, "admin")),
        (mine.api_token, other.workspace, None, ("api_token", None, "admin")),
        (mine.user_token, None, None, ("user", mine.workspace, "owner")),
        (mine.user_token, None, other.cluster, ("user", mine.workspace, "owner")),
        (mine.user_token, other.workspace, None, ("user", None, None)),
        (mine.user_token, other.workspace, mine.cluster, ("user", None, None)),
    ]
    for token, context, resource, expected in cases:
        with tenants.role(DatabaseRole.API) as connection:
            assert authenticate(connection, token, context, resource) == expected
            seen = connection.execute("SELECT workspace_id FROM clusters").fetchall()
            assert seen == ([(expected[1],)] if expected[1] else [])


def test_a_user_of_several_workspaces_acts_where_the_resource_is(
    tenants: Tenants, pair: tuple[Tenant, Tenant]
) -> None:
    mine, other = pair
    with tenants.administrator() as connection:
        connection.execute(
            "INSERT INTO workspace_members (workspace_id, user_id, id, role)"
            " VALUES (%s, %s, %s, 'member')",
            (other.workspace, mine.user, new_id(Prefix.MEMBER)),
        )
    for resource in (other.cluster, other.operation, other.region, other.workspace):
        with tenants.role(DatabaseRole.API) as connection:
            found = authenticate(connection, mine.user_token, None, resource)
            assert found == ("user", other.workspace, "member")


def test_an_unknown_credential_is_nobody_and_an_expired_one_is_bound_to_nothing(
    tenants: Tenants, pair: tuple[Tenant, Tenant]
) -> None:
    mine, _ = pair
    with tenants.role(DatabaseRole.API) as connection:
        assert authenticate(connection, b"unknown") is None
    with tenants.administrator() as connection:
        for table in ("api_tokens", "user_tokens"):
            connection.execute(f"UPDATE {table} SET expires_at = now()")  # noqa: S608 - the names above
    for token in (mine.api_token, mine.user_token):
        with tenants.role(DatabaseRole.API) as connection:
            expired = connection.execute(
                "SELECT expired FROM authenticate(%s, NULL, NULL)", (token,)
            ).fetchone()
            assert expired == (True,)
            assert connection.execute("SELECT count(*) FROM clusters").fetchone() == (0,)


def test_a_request_does_not_wait_for_another_that_notes_the_use_of_the_same_token(
    tenants: Tenants, pair: tuple[Tenant, Tenant]
) -> None:
    mine, _ = pair
    with tenants.role(DatabaseRole.API) as first, tenants.role(DatabaseRole.API) as second:
        assert authenticate(first, mine.user_token) is not None
        second.execute("SET LOCAL lock_timeout = '1s'")
        assert authenticate(second, mine.user_token) is not None


def test_places_are_given_once_and_only_while_there_is_memory(tenants: Tenants) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    names = [new_id(Prefix.CLUSTER) for _ in range(4)]
    with tenants.role(DatabaseRole.WORKER) as connection:
        connection.execute(
            "SELECT register_host('small', %s, 10, 'host.test', 30000)", (3 * GIBIBYTE,)
        )
        connection.commit()

    def ask(connection: psycopg.Connection, function: str, cluster: str, memory: int) -> object:
        row = connection.execute(
            sql.SQL("SELECT * FROM {}(%s, %s)").format(sql.Identifier(function)),
            (cluster, memory),
        ).fetchone()
        connection.commit()
        return row

    def bound(connection: psycopg.Connection, workspace: str) -> None:
        connection.execute("SELECT set_config('app.workspace_id', %s, false)", (workspace,))

    with tenants.role(DatabaseRole.API) as connection:
        bound(connection, mine.workspace)
        assert ask(connection, "reserve_slot", names[0], GIBIBYTE) == ("small", 0)
        assert ask(connection, "reserve_slot", names[1], GIBIBYTE) == ("small", 1)
        assert ask(connection, "reserve_slot", names[2], 2 * GIBIBYTE) is None
        assert ask(connection, "claim_slot_memory", names[1], 0) == (True,)
        assert ask(connection, "reserve_slot", names[2], 2 * GIBIBYTE) == ("small", 2)
        assert ask(connection, "claim_slot_memory", names[1], GIBIBYTE) == (False,)
        found = connection.execute("SELECT * FROM api_endpoint_of(%s)", (names[2],)).fetchone()
        assert found == ("host.test", 30000, 2)
        bound(connection, other.workspace)
        assert ask(connection, "claim_slot_memory", names[0], 0) == (False,)
        hidden = connection.execute("SELECT * FROM api_endpoint_of(%s)", (names[2],)).fetchone()
        assert hidden is None
    with tenants.role(DatabaseRole.WORKER) as connection:
        for workspace in (other.workspace, mine.workspace):
            bound(connection, workspace)
            connection.execute("SELECT release_slot(%s)", (names[0],))
            connection.commit()
            gone = workspace == mine.workspace
            with tenants.administrator() as administrator:
                left = administrator.execute(
                    "SELECT 1 FROM control_plane_slots WHERE cluster_id = %s", (names[0],)
                ).fetchone()
            assert (left is None) == gone


def test_the_certificates_of_a_hosts_clusters_are_due_when_it_moves(tenants: Tenants) -> None:
    tenant = tenants.new_tenant()

    def register(address: str) -> None:
        with tenants.role(DatabaseRole.WORKER) as connection:
            connection.execute("SELECT register_host('moving', 1, 10, %s, 30000)", (address,))
            connection.commit()

    def is_due() -> object:
        with tenants.role(DatabaseRole.SWEEPER) as connection:
            query = "SELECT certificates_renew_after <= now() FROM clusters WHERE id = %s"
            return connection.execute(query, (tenant.cluster,)).fetchone()

    register("old.test")
    with tenants.role(DatabaseRole.WORKER) as connection:
        connection.execute("SELECT set_config('app.workspace_id', %s, false)", (tenant.workspace,))
        connection.execute(
            "UPDATE clusters SET host = 'moving', state = 'active',"
            " certificates_renew_after = now() + interval '1 day' WHERE id = %s",
            (tenant.cluster,),
        )
        connection.commit()
    register("old.test")
    assert is_due() == (False,)
    register("new.test")
    assert is_due() == (True,)


def test_the_first_owner_is_made_once(tenants: Tenants) -> None:
    tenants.new_tenant()
    with tenants.administrator() as connection:
        made = connection.execute(
            "SELECT create_first_owner('usr_x', 'x', 'ws_x', 'first-x', 'wsm_x', 'tok_x', '')"
        ).fetchone()
    assert made == (False,)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (DatabaseRole.API, "SELECT create_first_owner('', '', '', '', '', '', '')"),
        (DatabaseRole.API, "SELECT create_user('', '', '', '', '', '', '', '', false)"),
        (DatabaseRole.WORKER, "SELECT create_user('', '', '', '', '', '', '', '', true)"),
        (DatabaseRole.WORKER, "SELECT * FROM member_names()"),
        (DatabaseRole.API, "SELECT register_host('x', 1, 1, 'x', 1)"),
        (DatabaseRole.API, "SELECT release_slot('x')"),
        (DatabaseRole.WORKER, "SELECT * FROM authenticate('', NULL, NULL)"),
        (DatabaseRole.SWEEPER, "SELECT * FROM api_endpoint_of('x')"),
        (DatabaseRole.SWEEPER, "SELECT * FROM authenticate('', NULL, NULL)"),
        (DatabaseRole.SWEEPER, "SELECT claim_slot_memory('x', 0)"),
        (DatabaseRole.SWEEPER, "CREATE TABLE mine (id int)"),
        (DatabaseRole.API, "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql RETURN 1"),
    ],
)
def test_each_role_has_its_own_functions(
    tenants: Tenants, role: DatabaseRole, statement: str
) -> None:
    with tenants.role(role) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


def test_the_name_of_another_workspaces_region_is_for_who_gives_out_turns_alone(
    tenants: Tenants, pair: tuple[Tenant, Tenant]
) -> None:
    mine, other = pair
    named = {}
    for role in (DatabaseRole.API, DatabaseRole.WORKER, DatabaseRole.SWEEPER):
        workspace = None if role is DatabaseRole.SWEEPER else mine.workspace
        with tenants.role(role, workspace) as connection:
            found = connection.execute(
                "SELECT region_name(%s, %s), region_name(%s, %s)",
                (mine.workspace, mine.region, other.workspace, other.region),
            ).fetchone()
            assert found is not None
            named[role] = tuple(name is not None for name in found)
    assert named == {
        DatabaseRole.API: (True, False),
        DatabaseRole.WORKER: (True, False),
        DatabaseRole.SWEEPER: (True, True),
    }


def test_the_names_of_members_are_for_their_workspace_alone(
    tenants: Tenants, pair: tuple[Tenant, Tenant]
) -> None:
    mine, _ = pair
    with tenants.role(DatabaseRole.API, mine.workspace) as connection:
        assert connection.execute("SELECT * FROM member_names()").fetchall() == [
            (mine.user, "test")
        ]
    with tenants.role(DatabaseRole.API) as connection:
        assert connection.execute("SELECT * FROM member_names()").fetchall() == []
