import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlmodel import select

from domain.caller import Role, Scope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.quota import QuotaMetric
from domain.rotation import Rotation
from domain.secret import SecretValue
from domain.tokens import TokenKind, display_prefix_of, hash_of, new_token
from infra.database.engine import Database, DatabaseRole
from infra.database.queries.access import Principal, authenticate
from infra.database.tables import ApiTokenRow, AuditEventRow, WorkspaceRow
from infra.rotators.workspace_api_token import WorkspaceApiToken
from tests.infra.rotators.rotations import fails, new_rotation
from tests.servers import Servers

END = datetime(2031, 1, 2, tzinfo=UTC)


@dataclass
class Workspace:
    """A workspace with one token, and what its API and a rotation know of it."""

    api: Database
    rotator: WorkspaceApiToken
    servers: Servers
    id: str
    current: SecretValue

    def rotation(self) -> Rotation:
        return new_rotation(WorkspaceApiToken.check_settings("", {}), self.id)

    async def holder(self, value: SecretValue) -> Principal | None:
        """Authenticate as a request with the token does."""
        async with self.api.transaction() as session:
            return await authenticate(session, hash_of(value.text()), context=None, resource=None)

    async def audited(self) -> list[str]:
        async with self.api.workspace(self.id) as session:
            return [event.action for event in await session.exec(select(AuditEventRow))]

    def allow(self, limit: int) -> None:
        """Set how many tokens the workspace may have."""
        with self.servers.administrator() as connection:
            connection.execute(
                'INSERT INTO quotas (workspace_id, metric, "limit") VALUES (%s, %s, %s)',
                (self.id, QuotaMetric.API_TOKENS, limit),
            )

    async def tokens(self) -> int:
        async with self.api.workspace(self.id) as session:
            return len((await session.exec(select(ApiTokenRow))).all())


async def add_token(api: Database, workspace_id: str, end: datetime | None) -> SecretValue:
    """Add a token of a member that may read secrets."""
    token = new_token(TokenKind.WORKSPACE)
    async with api.workspace(workspace_id) as session:
        session.add(
            ApiTokenRow(
                workspace_id=workspace_id,
                id=new_id(Prefix.API_TOKEN),
                name="deployer",
                role=Role.MEMBER,
                scopes=[Scope.SECRETS_READ.value],
                prefix=display_prefix_of(token),
                token_hash=hash_of(token),
                created_by=new_id(Prefix.USER),
                expires_at=end,
            )
        )
    return SecretValue.of_text(token)


@pytest_asyncio.fixture(loop_scope="session")
async def workspace(servers: Servers) -> AsyncIterator[Workspace]:
    api = Database(servers.database, DatabaseRole.API)
    worker = Database(servers.database, DatabaseRole.WORKER)
    workspace_id = new_id(Prefix.WORKSPACE)
    async with api.workspace(workspace_id) as session:
        session.add(WorkspaceRow(id=workspace_id, name="test", slug=workspace_id[-30:]))
    current = await add_token(api, workspace_id, END)
    yield Workspace(api, WorkspaceApiToken(worker), servers, workspace_id, current)
    await worker.close()
    await api.close()


async def test_the_new_token_has_the_old_ones_rights_and_every_step_may_be_repeated(
    workspace: Workspace,
) -> None:
    rotation, rotator = workspace.rotation(), workspace.rotator
    pending = [await rotator.create(rotation, workspace.current) for _ in range(2)][-1]
    assert await workspace.holder(pending) is None
    for _ in range(2):
        await rotator.set(rotation, pending, workspace.current)
        await rotator.test(rotation, pending)
    old, new = await workspace.holder(workspace.current), await workspace.holder(pending)
    assert old is not None
    assert new is not None
    assert (new.workspace_id, new.role, new.scopes) == (
        workspace.id,
        Role.MEMBER,
        frozenset({Scope.SECRETS_READ}),
    )
    assert new.token_id != old.token_id
    async with workspace.api.workspace(workspace.id) as session:
        rows = (await session.exec(select(ApiTokenRow))).all()
    assert {(row.name, row.created_by, row.expires_at) for row in rows} == {
        ("deployer", rows[0].created_by, END)
    }
    for _ in range(2):
        await rotator.retire(rotation, workspace.current, pending)
    assert await workspace.holder(workspace.current) is None
    assert await workspace.holder(pending) is not None
    assert await workspace.audited() == ["api_token.create", "api_token.delete"]


@pytest.mark.parametrize("reached", ["nothing", "create", "set", "test"])
async def test_an_undo_leaves_the_current_token_alone(workspace: Workspace, reached: str) -> None:
    rotation, rotator = workspace.rotation(), workspace.rotator
    pending = None if reached == "nothing" else await rotator.create(rotation, workspace.current)
    if pending is not None and reached in {"set", "test"}:
        await rotator.set(rotation, pending, workspace.current)
        if reached == "test":
            await rotator.test(rotation, pending)
    for _ in range(2):
        await rotator.unset(rotation, pending, workspace.current)
    assert await workspace.holder(workspace.current) is not None
    assert pending is None or await workspace.holder(pending) is None
    assert await workspace.tokens() == 1


async def test_a_second_value_of_the_same_rotation_replaces_the_first(
    workspace: Workspace,
) -> None:
    rotation, rotator = workspace.rotation(), workspace.rotator
    first, second = [await rotator.create(rotation, workspace.current) for _ in range(2)]
    for pending in (first, second):
        await rotator.set(rotation, pending, workspace.current)
    assert await workspace.holder(first) is None
    assert await workspace.holder(second) is not None
    assert await workspace.tokens() == 2


async def test_the_audit_line_of_a_token_that_a_rotation_makes_names_its_scopes(
    workspace: Workspace,
) -> None:
    rotation, rotator = workspace.rotation(), workspace.rotator
    pending = await rotator.create(rotation, workspace.current)
    await rotator.set(rotation, pending, workspace.current)
    async with workspace.api.workspace(workspace.id) as session:
        (line,) = (await session.exec(select(AuditEventRow))).all()
    assert line.details["scopes"] == "secrets:read"


async def test_a_token_of_another_workspace_is_neither_copied_nor_removed(
    workspace: Workspace,
) -> None:
    elsewhere = new_id(Prefix.WORKSPACE)
    async with workspace.api.workspace(elsewhere) as session:
        session.add(WorkspaceRow(id=elsewhere, name="other", slug=elsewhere[-30:]))
    foreign = await add_token(workspace.api, elsewhere, None)
    rotation, rotator = workspace.rotation(), workspace.rotator
    pending = await rotator.create(rotation, foreign)
    with fails(Reason.CREDENTIAL_REJECTED, foreign.text()):
        await rotator.set(rotation, pending, foreign)
    await rotator.retire(rotation, foreign, pending)
    assert await workspace.holder(foreign) is not None
    assert await workspace.holder(pending) is None


async def test_a_token_that_has_ended_or_never_was_is_not_copied(workspace: Workspace) -> None:
    ended = await add_token(workspace.api, workspace.id, datetime.now(UTC) - timedelta(seconds=1))
    rotation, rotator = workspace.rotation(), workspace.rotator
    pending = await rotator.create(rotation, ended)
    for current in (
        ended,
        SecretValue.of_text(new_token(TokenKind.WORKSPACE)),
        SecretValue.of_text("canary"),
        SecretValue("canary\u00e9".encode()),
    ):
        with fails(Reason.CREDENTIAL_REJECTED, "canary", current.text()):
            await rotator.set(rotation, pending, current)
    with fails(Reason.CREDENTIAL_REJECTED, pending.text()):
        await rotator.test(rotation, pending)


async def test_a_rotation_leaves_the_workspace_within_its_quota_of_tokens(
    workspace: Workspace,
) -> None:
    await asyncio.to_thread(workspace.allow, 1)
    rotation, rotator = workspace.rotation(), workspace.rotator
    pending = await rotator.create(rotation, workspace.current)
    with fails(Reason.QUOTA_EXCEEDED, pending.text(), workspace.current.text()):
        await rotator.set(rotation, pending, workspace.current)
    assert await workspace.holder(pending) is None
    assert await workspace.tokens() == 1
    assert await workspace.audited() == []


async def test_the_last_token_of_a_quota_may_be_made_by_a_rotation_however_often_it_says_so(
    workspace: Workspace,
) -> None:
    await asyncio.to_thread(workspace.allow, 2)
    rotation, rotator = workspace.rotation(), workspace.rotator
    first, second = [await rotator.create(rotation, workspace.current) for _ in range(2)]
    for pending in (first, first, second):
        await rotator.set(rotation, pending, workspace.current)
    assert await workspace.holder(second) is not None
    assert await workspace.tokens() == 2


async def test_rotations_that_come_at_once_stay_within_the_quota_of_tokens(
    workspace: Workspace,
) -> None:
    await asyncio.to_thread(workspace.allow, 3)

    rotator = workspace.rotator

    async def rotate() -> None:
        rotation = workspace.rotation()
        pending = await rotator.create(rotation, workspace.current)
        await rotator.set(rotation, pending, workspace.current)

    outcomes = await asyncio.gather(*[rotate() for _ in range(8)], return_exceptions=True)
    refused = [one.reason for one in outcomes if isinstance(one, BulkheadError)]
    assert refused == [Reason.QUOTA_EXCEEDED] * 6
    assert outcomes.count(None) == 2
    assert await workspace.tokens() == 3
