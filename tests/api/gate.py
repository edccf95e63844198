"""The application on real servers, and the people who call it.

The tests have a database and a Temporal namespace of their own on the session's servers, so that
no worker of other tests picks up what is asked for here.
"""

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError

from api.app import create_app
from api.clients import Clients
from api.main import open_clients
from domain.caller import Role
from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.names import workflow_id_of
from domain.operation import OperationType
from domain.tokens import TokenKind, hash_of, new_token
from infra.artifacts import ArtifactStore
from infra.database.bootstrap import bootstrap
from infra.database.engine import Database, DatabaseRole
from infra.database.records.cluster import ClusterRecords
from infra.database.records.operation import cluster_operation_of
from infra.database.tables import OperationRow
from infra.openbao.client import OpenBao
from infra.settings import (
    ApiProcessSettings,
    ApiSettings,
    DatabaseSettings,
    ProviderSettings,
    TemporalSettings,
)
from infra.temporal.start import SEARCH_ATTRIBUTES
from tests.servers import Servers

DATABASE = "bulkhead_api_tests"
NAMESPACE = "api-tests"
HOST = "api-tests"
GIBIBYTE = 1024**3
NODE_URL = "https://bulkhead.test:8443"
PROGRAM = b"#!/bin/sh\n"

JSON = dict[str, Any]

# Nothing listens there: tests ask no cloud whether it knows a token.
_NOWHERE = "http://127.0.0.1:9"
UNREACHABLE_PROVIDERS = ProviderSettings(
    hcloud_url=_NOWHERE,
    aws_sts_url=_NOWHERE,
    gcp_token_url=_NOWHERE,
    azure_login_url=_NOWHERE,
)


@dataclass(frozen=True)
class Person:
    """A caller with a token; `workspace` is the one in which they act unless they say another."""

    user_id: str
    workspace: str
    token: str
    client: httpx.AsyncClient

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - options of httpx
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - options of httpx
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:  # noqa: ANN401 - options of httpx
        return await self.call("POST", path, json=body, **options)


class Gate:
    """What the tests of the API do apart from calling it."""

    def __init__(self, servers: Servers, settings: ApiProcessSettings, clients: Clients) -> None:
        self.servers = servers
        self.settings = settings
        self.clients = clients
        self.app = create_app(clients, settings.api, temporal_namespace=NAMESPACE)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://bulkhead.test", timeout=60
        )
        self.worker_database = Database(settings.database, DatabaseRole.WORKER)
        self.records = ClusterRecords(self.worker_database)

    def administrator(self) -> contextlib.AbstractContextManager[psycopg.Connection]:
        """Open a superuser's connection to the tests' database."""
        return self.servers.administrator(DATABASE)

    def new_workspace(self) -> str:
        workspace = new_id(Prefix.WORKSPACE)
        with self.administrator() as connection:
            connection.execute(
                "INSERT INTO workspaces (id, name, slug, version) VALUES (%s, 'test', %s, 1)",
                (workspace, workspace[-32:]),
            )
        return workspace

    def new_person(
        self, workspace: str | None = None, role: Role = Role.OWNER, *, valid_for: str = "1 hour"
    ) -> Person:
        """Make a user with a token, a member of a new workspace or of the given one."""
        workspace = workspace or self.new_workspace()
        user, token = new_id(Prefix.USER), new_token(TokenKind.USER)
        with self.administrator() as connection:
            connection.execute(
                "INSERT INTO users (id, name, default_workspace_id) VALUES (%s, 'test', %s)",
                (user, workspace),
            )
            connection.execute(
                "INSERT INTO user_tokens (id, user_id, name, token_hash, expires_at)"
                " VALUES (%s, %s, 'test', %s, now() + %s::interval)",
                (new_id(Prefix.API_TOKEN), user, hash_of(token), valid_for),
            )
        person = Person(user, workspace, token, self.client)
        self.join(person, workspace, role)
        return person

    def join(self, person: Person, workspace: str, role: Role) -> None:
        """Make a person a member of one more workspace."""
        with self.administrator() as connection:
            connection.execute(
                "INSERT INTO workspace_members (workspace_id, user_id, id, role)"
                " VALUES (%s, %s, %s, %s)",
                (workspace, person.user_id, new_id(Prefix.MEMBER), role),
            )

    async def new_region(self, person: Person) -> str:
        answer = await person.post("/v1/regions", {"name": "here"})
        assert answer.status_code == 201, answer.text
        region: str = answer.json()["id"]
        return region

    async def new_cluster(self, person: Person, region: str | None = None) -> JSON:
        """Ask for a cluster and return its operation."""
        body = {"name": "test", "region_id": region or await self.new_region(person)}
        answer = await person.post("/v1/clusters", body)
        assert answer.status_code == 202, answer.text
        operation: JSON = answer.json()
        return operation

    async def new_active_cluster(self, person: Person) -> JSON:
        """Ask for a cluster, have the worker's transaction say that it is active, and read it."""
        operation = await self.new_cluster(person)
        await self.reach_active(person, operation["id"])
        cluster: JSON = (await person.get(f"/v1/clusters/{operation['owner_id']}")).json()
        assert cluster["state"] == "active"
        return cluster

    async def new_cluster_with_authorities(self, person: Person) -> JSON:
        """Make what a cluster's workflow makes in OpenBao before the cluster is active."""
        cluster = await self.new_active_cluster(person)
        openbao = OpenBao(self.servers.openbao("worker"))
        plane = HostedControlPlane(
            workspace_id=person.workspace, cluster_id=cluster["id"], host=HOST, slot=0
        )
        await asyncio.to_thread(openbao.ensure_secret_space, person.workspace)
        await asyncio.to_thread(openbao.ensure_authorities, plane)
        openbao.close()
        return cluster

    async def reach_active(self, person: Person, operation_id: str) -> None:
        row = await self.operation(person, operation_id)
        await self.records.reach_active(cluster_operation_of(row), 4000000000, 4100000000)

    async def reach_suspended(self, person: Person, operation_id: str) -> None:
        row = await self.operation(person, operation_id)
        await self.records.reach_suspended(cluster_operation_of(row))

    async def operation(self, person: Person, operation_id: str) -> OperationRow:
        async with self.clients.database.workspace(person.workspace) as session:
            return await session.get_one(OperationRow, (person.workspace, operation_id))

    async def workflow(self, operation: JSON) -> WorkflowExecutionDescription | None:
        """Look an operation's workflow up in Temporal."""
        client = await self.clients.temporal.client()
        handle: Any = client.get_workflow_handle(
            workflow_id_of(
                OperationType(operation["metadata"]["type"]), operation["owner_id"], operation["id"]
            )
        )
        try:
            found: WorkflowExecutionDescription = await handle.describe()
        except RPCError:
            return None
        return found

    def audit(self, workspace: str) -> list[tuple[str, str, str]]:
        """Return the action, outcome and resource of each audit line, oldest first."""
        with self.administrator() as connection:
            return connection.execute(
                "SELECT action, outcome, resource_id FROM audit_events WHERE workspace_id = %s"
                " ORDER BY id",
                (workspace,),
            ).fetchall()

    def count(self, table: str, workspace: str) -> int:
        """Count a workspace's rows."""
        with self.administrator() as connection:
            query = psycopg.sql.SQL("SELECT count(*) FROM {} WHERE workspace_id = %s")
            row = connection.execute(
                query.format(psycopg.sql.Identifier(table)), (workspace,)
            ).fetchone()
        assert row is not None
        return int(row[0])

    def set_quota(self, workspace: str, metric: str, limit: int) -> None:
        with self.administrator() as connection:
            connection.execute(
                'INSERT INTO quotas (workspace_id, metric, "limit") VALUES (%s, %s, %s)',
                (workspace, metric, limit),
            )

    def set_host_memory(self, memory_bytes: int) -> None:
        with self.administrator() as connection:
            connection.execute(
                "SELECT register_host(%s, %s, 1000, '127.0.0.1', 20000)", (HOST, memory_bytes)
            )


@contextlib.asynccontextmanager
async def running_gate(servers: Servers) -> AsyncIterator[Gate]:
    """Make the database and the namespace, and run the application in this process."""
    database = servers.database.model_copy(update={"name": DATABASE})
    temporal = servers.temporal.model_copy(update={"namespace": NAMESPACE})
    make_database(servers, database)
    await make_namespace(temporal)
    settings = ApiProcessSettings(
        database=database,
        temporal=temporal,
        openbao=servers.openbao("api"),
        providers=UNREACHABLE_PROVIDERS,
        api=ApiSettings(
            http_address="127.0.0.1:0", temporal_ui_url=servers.temporal_ui, node_url=NODE_URL
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        settings.api.artifacts_dir = Path(folder)
        store_program(Path(folder))
        async with open_clients(settings) as clients, clients.changes.listening():
            gate = Gate(servers, settings, clients)
            gate.set_host_memory(1000 * GIBIBYTE)
            yield gate
            await gate.client.aclose()
            await gate.worker_database.close()


def store_program(folder: Path) -> None:
    """Store what a server would download; one file of a known name stands for all of them."""
    program = folder / "kubectl"
    program.write_bytes(PROGRAM)
    ArtifactStore(folder).ensure({"kubectl": program}, "linux/amd64")


def make_database(servers: Servers, database: DatabaseSettings) -> None:
    """Make and migrate a database."""
    with servers.administrator("postgres") as connection:
        bootstrap(connection, database)


async def make_namespace(temporal: TemporalSettings) -> None:
    """Make a namespace with our search attributes."""
    client = await Client.connect(temporal.address)
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=temporal.namespace,
            workflow_execution_retention_period=Duration(seconds=int(timedelta(1).total_seconds())),
        )
    )
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=temporal.namespace,
            search_attributes={
                key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in SEARCH_ATTRIBUTES
            },
        )
    )


def a_token_of_nobody() -> str:
    """Return a token that is well-formed and unknown."""
    return new_token(TokenKind.USER)


def a_key() -> str:
    """Return a fresh Idempotency-Key."""
    return secrets.token_hex(16)
