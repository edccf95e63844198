"""What each role can reach, whatever the code above it forgets."""

import psycopg
import pytest
from psycopg import errors, sql

from infra.database.bootstrap import DEFINER
from infra.database.engine import DatabaseRole
from tests.infra.database.tenants import HIDDEN_TABLES, TENANT_TABLES, Tenants

READS = sql.SQL("SELECT workspace_id FROM {}")


def workspaces_in(connection: psycopg.Connection, table: str) -> set[str]:
    return {row[0] for row in connection.execute(READS.format(sql.Identifier(table)))}


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_a_transaction_that_names_no_workspace_sees_no_row(tenants: Tenants, table: str) -> None:
    tenants.new_tenant()
    with tenants.role(DatabaseRole.API) as connection:
        assert workspaces_in(connection, table) == set()
        connection.execute("SELECT set_config('app.workspace_id', '', true)")
        assert workspaces_in(connection, table) == set()


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_a_transaction_sees_the_rows_of_its_workspace_alone(tenants: Tenants, table: str) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    with tenants.role(DatabaseRole.API, mine.workspace) as connection:
        assert workspaces_in(connection, table) == {mine.workspace}
    with tenants.administrator() as connection:
        assert {mine.workspace, other.workspace} <= workspaces_in(connection, table)


@pytest.mark.parametrize("role", [DatabaseRole.API, DatabaseRole.WORKER])
def test_no_row_can_be_written_into_or_moved_to_another_workspace(
    tenants: Tenants, role: DatabaseRole
) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    with tenants.role(role, mine.workspace) as connection:
        changed = connection.execute(
            "UPDATE clusters SET version = 99 WHERE id = %s", (other.cluster,)
        )
        assert changed.rowcount == 0
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(
                "UPDATE clusters SET workspace_id = %s WHERE id = %s",
                (other.workspace, mine.cluster),
            )
    with (
        tenants.role(role, mine.workspace) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(
            "INSERT INTO audit_events (workspace_id, id, actor_kind, actor_id, action,"
            " resource_type, resource_id, outcome, details)"
            " VALUES (%s, 'aud_x', 'user', 'x', 'x', 'x', 'x', 'x', '{}')",
            (other.workspace,),
        )


def test_a_cluster_cannot_be_put_into_a_region_of_another_workspace(tenants: Tenants) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    with (
        tenants.role(DatabaseRole.API, mine.workspace) as connection,
        pytest.raises(errors.ForeignKeyViolation),
    ):
        connection.execute("UPDATE clusters SET region_id = %s", (other.region,))


@pytest.mark.parametrize("role", [DatabaseRole.API, DatabaseRole.WORKER, DatabaseRole.SWEEPER])
def test_audit_lines_cannot_be_changed_or_removed(tenants: Tenants, role: DatabaseRole) -> None:
    mine = tenants.new_tenant()
    for statement in (
        "UPDATE audit_events SET outcome = 'denied'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "DROP TABLE audit_events",
        "ALTER TABLE audit_events DISABLE ROW LEVEL SECURITY",
    ):
        with (
            tenants.role(role, mine.workspace) as connection,
            pytest.raises(errors.InsufficientPrivilege),
        ):
            connection.execute(statement)


@pytest.mark.parametrize("role", [DatabaseRole.API, DatabaseRole.WORKER, DatabaseRole.SWEEPER])
@pytest.mark.parametrize("table", HIDDEN_TABLES)
def test_users_and_the_operators_hosts_are_behind_functions(
    tenants: Tenants, role: DatabaseRole, table: str
) -> None:
    mine = tenants.new_tenant()
    with (
        tenants.role(role, mine.workspace) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(sql.SQL("SELECT 1 FROM {}").format(sql.Identifier(table)))


def test_row_level_security_is_forced_on_every_table(tenants: Tenants) -> None:
    with tenants.administrator() as connection:
        open_tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname <> 'alembic_version'"
            " AND relnamespace = 'public'::regnamespace"
            " AND NOT (relrowsecurity AND relforcerowsecurity)"
        ).fetchall()
    assert open_tables == []


def test_no_role_may_bypass_row_level_security(tenants: Tenants) -> None:
    with tenants.administrator() as connection:
        powerful = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
            " AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)",
            ([DEFINER, *DatabaseRole],),
        ).fetchall()
    assert powerful == []


def test_a_setting_ends_with_its_transaction(tenants: Tenants) -> None:
    mine = tenants.new_tenant()
    with tenants.role(DatabaseRole.API, mine.workspace) as connection:
        assert workspaces_in(connection, "clusters") == {mine.workspace}
        connection.commit()
        assert workspaces_in(connection, "clusters") == set()


def test_a_user_lists_the_workspaces_of_which_they_are_a_member(tenants: Tenants) -> None:
    mine = tenants.new_tenant()
    tenants.new_tenant()
    with tenants.role(DatabaseRole.API) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", (mine.user,))
        found = connection.execute("SELECT id FROM workspaces").fetchall()
        assert found == [(mine.workspace,)]
        changed = connection.execute("UPDATE workspaces SET name = 'x'")
        assert changed.rowcount == 0


def test_sweeps_see_what_schedules_need_and_no_more(tenants: Tenants) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    with tenants.role(DatabaseRole.SWEEPER) as connection:
        assert {mine.workspace, other.workspace} <= workspaces_in(connection, "operations")
        for table in ("api_tokens", "audit_events", "regions", "workspace_members"):
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                workspaces_in(connection, table)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("UPDATE operations SET state = 'FAILED'")


def test_no_request_makes_somebody_else_an_owner(tenants: Tenants) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    insert = (
        "INSERT INTO workspace_members (workspace_id, user_id, id, role) VALUES (%s, %s, %s, %s)"
    )
    with tenants.role(DatabaseRole.API, mine.workspace) as connection:
        with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            connection.execute(insert, (mine.workspace, other.user, "wsm_x", "owner"))
        connection.execute(insert, (mine.workspace, other.user, "wsm_x", "member"))
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("UPDATE workspace_members SET role = 'owner'")


def test_the_members_of_another_workspace_cannot_be_changed_or_removed(tenants: Tenants) -> None:
    mine, other = tenants.new_tenant(), tenants.new_tenant()
    with tenants.role(DatabaseRole.API, mine.workspace) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", (other.user,))
        for statement in (
            "UPDATE workspace_members SET role = 'member' WHERE user_id = %s",
            "DELETE FROM workspace_members WHERE user_id = %s",
        ):
            assert connection.execute(statement, (other.user,)).rowcount == 0
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("UPDATE workspace_members SET user_id = %s", (other.user,))
