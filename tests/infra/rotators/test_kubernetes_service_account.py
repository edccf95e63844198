"""One real cluster, in a place that the database knows."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from domain.cluster import HostedControlPlane
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.database.engine import Database, DatabaseRole
from infra.rotators.hosted_clusters import HostedClusters
from infra.rotators.kubernetes_service_account import KubernetesServiceAccount
from tests.infra.control_planes.host import Host, Kubectl, running_host
from tests.infra.rotators.rotations import fails, new_rotation
from tests.servers import Servers

ACCOUNT = "deployer"
USER = f"system:serviceaccount:default:{ACCOUNT}"


@dataclass
class Target:
    """The cluster with one ServiceAccount."""

    cluster: HostedControlPlane
    kubectl: Kubectl
    rotator: KubernetesServiceAccount

    def rotation(self, **settings: object) -> Rotation:
        checked = KubernetesServiceAccount.check_settings(
            new_id(Prefix.SECRET),
            {
                "cluster_id": self.cluster.cluster_id,
                "namespace": "default",
                "service_account": ACCOUNT,
                **settings,
            },
        )
        return new_rotation(checked, self.cluster.workspace_id)

    def person_token(self) -> SecretValue:
        """Return a token as a person makes one: bound to nothing but the ServiceAccount."""
        return SecretValue.of_text(self.kubectl("create", "token", ACCOUNT).strip())

    def user_of(self, token: SecretValue) -> str | None:
        """Ask the API server, with the token alone, who that is."""
        document = json.loads(self.kubectl.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token.text()}
        own = self.kubectl.kubeconfig.with_suffix(".token")
        own.touch(mode=0o600)
        own.write_text(json.dumps(document))
        kubectl = Kubectl(own)
        answer = kubectl.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
        return answer.stdout if answer.returncode == 0 else None

    def bound_secrets(self) -> list[str]:
        found = self.kubectl("get", "secrets", "-o", "name").split()
        return [name for name in found if "bulkhead-rotation-" in name]


@pytest.fixture(scope="module")
def host(servers: Servers) -> Iterator[Host]:
    with running_host(servers, "rotated-planes") as found:
        yield found


@pytest.fixture(scope="module")
def cluster(servers: Servers, host: Host) -> Iterator[HostedControlPlane]:
    with host.cluster() as found:
        with servers.administrator() as administrator:
            _record(administrator, host, found)
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def target(
    servers: Servers, host: Host, cluster: HostedControlPlane, tmp_path: Path
) -> AsyncIterator[Target]:
    kubectl = host.kubectl(cluster, tmp_path)
    kubectl("create", "serviceaccount", ACCOUNT)
    database = Database(servers.database, DatabaseRole.WORKER)
    clusters = HostedClusters(database, host.openbao)
    yield Target(cluster, kubectl, KubernetesServiceAccount(clusters))
    await database.close()
    kubectl("delete", "serviceaccount", ACCOUNT)
    kubectl("delete", "secrets", "--selector=app.kubernetes.io/managed-by=bulkhead")


def _record(administrator: psycopg.Connection, host: Host, cluster: HostedControlPlane) -> None:
    """Write the rows that a cluster which the platform made has."""
    workspace, region = cluster.workspace_id, new_id(Prefix.REGION)
    name = f"host-of-{cluster.cluster_id}"
    rows: list[tuple[str, dict[str, Any]]] = [
        ("workspaces", {"id": workspace, "name": "t", "slug": workspace[-30:], "version": 1}),
        ("regions", {"workspace_id": workspace, "id": region, "name": "here"}),
        (
            "clusters",
            {
                "workspace_id": workspace,
                "id": cluster.cluster_id,
                "name": "t",
                "region_id": region,
                "provider": "managed_kaas",
                "network_profile": "linux_cilium",
                "state": "active",
                "host": name,
                "slot": cluster.slot,
                "version": 1,
            },
        ),
        (
            "control_plane_hosts",
            {
                "name": name,
                "memory_bytes": 1,
                "slots": 100,
                "address": "127.0.0.1",
                "first_port": host.settings.first_port,
                # Nothing of this session's platform is placed here.
                "enabled": False,
            },
        ),
        (
            "control_plane_slots",
            {
                "host": name,
                "slot": cluster.slot,
                "workspace_id": workspace,
                "cluster_id": cluster.cluster_id,
                "memory_bytes": 1,
            },
        ),
    ]
    for table, values in rows:
        administrator.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(sql.Placeholder() * len(values)),
            ),
            tuple(values.values()),
        )


async def test_two_rotations_replace_a_token_that_the_next_one_revokes(target: Target) -> None:
    first, rotator = target.rotation(), target.rotator
    made = [await rotator.create(first, target.person_token()) for _ in range(2)]
    pending = made[-1]
    for _ in range(2):
        await rotator.set(first, pending, made[0])
        await rotator.test(first, pending)
    assert target.user_of(pending) == USER
    second = target.rotation()
    newest = await rotator.create(second, pending)
    for _ in range(2):
        await rotator.retire(second, pending, newest)
    # Every token of the first rotation is off, among them one that a crash would have lost.
    assert [target.user_of(token) for token in (*made, newest)] == [None, None, USER]
    assert len(target.bound_secrets()) == 1


# A token that was used is remembered by the API server for ten seconds.
@pytest.mark.parametrize(
    "reached", ["nothing", "create", pytest.param("test", marks=pytest.mark.full)]
)
async def test_an_undo_revokes_the_new_token_and_nothing_else(target: Target, reached: str) -> None:
    rotation, rotator = target.rotation(), target.rotator
    before = target.rotation()
    current = await rotator.create(before, target.person_token())
    made = None if reached == "nothing" else await rotator.create(rotation, current)
    if made is not None and reached == "test":
        await rotator.test(rotation, made)
    for pending in (made, None):
        await rotator.unset(rotation, pending, current)
    assert target.user_of(current) == USER
    assert made is None or target.user_of(made) is None
    assert len(target.bound_secrets()) == 1


async def test_a_token_for_another_audience_is_tested_as_one(target: Target) -> None:
    rotation = target.rotation(audience="https://registry.example.com", expiration_seconds=600)
    token = await target.rotator.create(rotation, target.person_token())
    await target.rotator.test(rotation, token)
    assert target.user_of(token) is None
    with fails(Reason.CREDENTIAL_REJECTED, token.text()):
        await target.rotator.test(target.rotation(), token)


async def test_a_token_that_no_rotation_made_is_not_said_to_be_revoked(target: Target) -> None:
    token = target.person_token()
    with fails(Reason.FAILED_PRECONDITION, token.text()):
        await target.rotator.retire(target.rotation(), token, token)
    assert target.user_of(token) == USER
    unknown = SecretValue.of_text("what nobody accepts")
    await target.rotator.retire(target.rotation(), unknown, token)


async def test_claims_that_name_something_else_remove_nothing(target: Target) -> None:
    target.kubectl("create", "secret", "generic", "precious")
    for name in ("precious", "bulkhead-rotation-../../secrets/precious"):
        claims = {"sub": USER, "kubernetes.io": {"secret": {"name": name, "uid": "1"}}}
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        token = SecretValue.of_text(f"e30.{forged}.e30")
        await target.rotator.retire(target.rotation(), token, token)
    target.kubectl("get", "secret", "precious")
    target.kubectl("delete", "secret", "precious")


async def test_an_account_or_a_cluster_that_is_not_there_is_named_as_the_cause(
    target: Target,
) -> None:
    current = target.person_token()
    with fails(Reason.FAILED_PRECONDITION, current.text()):
        await target.rotator.create(target.rotation(service_account="nobody"), current)
    assert target.bound_secrets() == []
    gone = target.rotation(cluster_id=new_id(Prefix.CLUSTER))
    await target.rotator.unset(gone, current, current)
    await target.rotator.retire(gone, current, current)
    with fails(Reason.NOT_FOUND, current.text()):
        await target.rotator.create(gone, current)


async def test_another_workspaces_cluster_is_not_reached(target: Target) -> None:
    elsewhere = new_rotation(target.rotation().settings)
    with fails(Reason.NOT_FOUND):
        await target.rotator.create(elsewhere, SecretValue.of_text("anything"))
