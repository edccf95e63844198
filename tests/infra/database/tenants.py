"""Two workspaces with a row in every table, in a database of the tests' own."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from domain.identifiers import Prefix, new_id
from infra.database.bootstrap import bootstrap
from infra.database.engine import DatabaseRole, url_of
from infra.settings import DatabaseSettings
from tests.servers import Servers

DATABASE = "bulkhead_database_tests"

# Every table whose rows belong to one workspace.
TENANT_TABLES = [
    "api_tokens",
    "audit_events",
    "clusters",
    "idempotency_keys",
    "operation_steps",
    "operations",
    "quotas",
    "regions",
    "workspace_members",
]
# What our roles reach through functions only.
HIDDEN_TABLES = ["users", "user_tokens", "control_plane_hosts", "control_plane_slots"]


@dataclass(frozen=True)
class Tenant:
    """One workspace and what is in it."""

    workspace: str
    user: str
    cluster: str
    region: str
    operation: str
    user_token: bytes
    api_token: bytes


class Tenants:
    """Connections as each of our roles, and workspaces."""

    def __init__(self, servers: Servers, settings: DatabaseSettings) -> None:
        self._servers = servers
        self.settings = settings

    @contextlib.contextmanager
    def administrator(self) -> Iterator[psycopg.Connection]:
        with self._servers.administrator(DATABASE) as connection:
            yield connection

    @contextlib.contextmanager
    def role(
        self, role: DatabaseRole, workspace: str | None = None
    ) -> Iterator[psycopg.Connection]:
        """Open a transaction of a role, bound to a workspace or to none; roll it back."""
        url = url_of(self.settings, role)
        with psycopg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=str(url.password),
            dbname=url.database,
        ) as connection:
            if workspace is not None:
                connection.execute("SELECT set_config('app.workspace_id', %s, true)", (workspace,))
            yield connection
            connection.rollback()

    def new_tenant(self) -> Tenant:
        tenant = Tenant(
            workspace=new_id(Prefix.WORKSPACE),
            user=new_id(Prefix.USER),
            cluster=new_id(Prefix.CLUSTER),
            region=new_id(Prefix.REGION),
            operation=new_id(Prefix.OPERATION),
            user_token=new_id(Prefix.API_TOKEN).encode(),
            api_token=new_id(Prefix.API_TOKEN).encode(),
        )
        with self.administrator() as connection:
            _fill(connection, tenant)
        return tenant


def _fill(connection: psycopg.Connection, tenant: Tenant) -> None:
    workspace = tenant.workspace

    def insert(table: str, **values: object) -> None:
        connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(sql.Placeholder() * len(values)),
            ),
            tuple(values.values()),
        )

    insert("workspaces", id=workspace, name="test", slug=workspace[-32:], version=1)
    insert("users", id=tenant.user, name="test", default_workspace_id=workspace)
    insert(
        "user_tokens",
        id=new_id(Prefix.API_TOKEN),
        user_id=tenant.user,
        name="test",
        token_hash=tenant.user_token,
    )
    insert(
        "workspace_members",
        workspace_id=workspace,
        user_id=tenant.user,
        id=new_id(Prefix.MEMBER),
        role="owner",
    )
    insert(
        "api_tokens",
        workspace_id=workspace,
        id=new_id(Prefix.API_TOKEN),
        name="test",
        role="admin",
        prefix="test",
        token_hash=tenant.api_token,
        created_by=tenant.user,
    )
    insert("regions", workspace_id=workspace, id=tenant.region, name="test")
    insert(
        "clusters",
        workspace_id=workspace,
        id=tenant.cluster,
        name="test",
        region_id=tenant.region,
        provider="managed_kaas",
        network_profile="linux_cilium",
        state="active",
        host="none",
        slot=0,
        version=1,
    )
    insert(
        "operations",
        workspace_id=workspace,
        id=tenant.operation,
        type="cluster.create",
        owner_type="cluster",
        owner_id=tenant.cluster,
        state="RUNNING",
        request="{}",
        placement="{}",
        caller="{}",
        cancellable=True,
        version=1,
    )
    insert(
        "operation_steps",
        workspace_id=workspace,
        operation_id=tenant.operation,
        name="test",
        position=0,
        status="pending",
        attempt=0,
        retryable=False,
    )
    insert(
        "audit_events",
        workspace_id=workspace,
        id=new_id(Prefix.AUDIT_EVENT),
        actor_kind="user",
        actor_id=tenant.user,
        action="test",
        resource_type="cluster",
        resource_id=tenant.cluster,
        outcome="allowed",
        details="{}",
    )
    insert(
        "idempotency_keys",
        workspace_id=workspace,
        key="test",
        fingerprint=b"",
        status=200,
        answer="{}",
    )
    insert("quotas", workspace_id=workspace, metric="test", limit=1)


@contextlib.contextmanager
def tenants_of(servers: Servers) -> Iterator[Tenants]:
    """Make and migrate the database."""
    settings = servers.database.model_copy(update={"name": DATABASE})
    with servers.administrator("postgres") as connection:
        bootstrap(connection, settings)
    yield Tenants(servers, settings)
