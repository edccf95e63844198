"""How rotations are asked for, and what must be true afterwards."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlmodel import col, select

from domain.caller import Caller, Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from domain.owned_operation import SecretOperation
from domain.secret import (
    CURRENT,
    PREVIOUS,
    Retirement,
    RotatorKind,
    SecretKind,
    SecretValue,
    VersionState,
)
from domain.tokens import TokenKind, display_prefix_of, hash_of, new_token
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import secret_operation_of
from infra.database.records.rotation_plan import plan_rotation
from infra.database.records.secret import (
    begin_secret,
    complete_version,
    place_of,
)
from infra.database.tables import (
    ApiTokenRow,
    SecretReferenceRow,
    SecretRotationRow,
    SecretRow,
    SecretVersionRow,
)
from infra.openbao.policies import WORKER
from infra.openbao.session import OpenBaoSession
from infra.openbao.values import ValueStore
from infra.rotators.registry import check_settings
from infra.temporal.start import start_operation
from tests.infra.rotators.logins import two_logins
from tests.platform import Platform

BEFORE_FINISH: Sequence[str] = (
    Step.BEGIN_ROTATION,
    Step.CREATE_VALUE,
    Step.SET_VALUE,
    Step.TEST_VALUE,
)
FROM_FINISH_ON: Sequence[str] = (
    Step.FINISH_ROTATION,
    Step.DRAIN_CONSUMERS,
    Step.RETIRE_VERSION,
)


class Rotating:
    """A signing key: nothing outside has to accept it, and old versions are kept."""

    rotator = RotatorKind.WEBHOOK_SIGNING_KEY
    kind = SecretKind.WEBHOOK_SIGNING
    retirement = Retirement.KEEP
    # The state of the replaced version afterwards.
    replaced = VersionState.ENABLED

    operation_type = OperationType.SECRET_ROTATE
    forward_only = False
    steps: Sequence[str] = BEFORE_FINISH

    def __init__(self, platform: Platform, caller: Caller | None = None) -> None:
        self.platform = platform
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.grace_seconds = 0
        self._caller = caller
        self._stack = contextlib.ExitStack()
        self._session = OpenBaoSession(platform.servers.openbao("worker"), WORKER)
        self.values = ValueStore(self._session)
        self.first: SecretValue | None = None
        self.requested: SecretOperation | None = None

    async def caller(self) -> Caller:
        if self._caller is None:
            self._caller = await self.platform.new_workspace()
            await asyncio.to_thread(
                self.platform.openbao.ensure_secret_space, self._caller.workspace_id
            )
        return self._caller

    async def first_value(self) -> SecretValue:
        return SecretValue.of_text("whsec_" + "A" * 43 + "=")

    async def settings(self) -> dict[str, Any]:
        return {}

    async def store(self, value: SecretValue) -> str:
        """Make a secret with one version, and return its id."""
        caller = await self.caller()
        async with self.platform.api.workspace(caller.workspace_id) as session:
            version = await begin_secret(
                session, NewRows(), caller, name=uuid4().hex, kind=self.kind
            )
        place = place_of(version)
        await asyncio.to_thread(self.values.write, place, value)
        async with self.platform.api.workspace(caller.workspace_id) as session:
            await complete_version(session, place)
        return version.secret_id

    async def make(self) -> str:
        """Make a secret with one version and a policy, and return its id."""
        caller = await self.caller()
        self.first = await self.first_value()
        secret_id = await self.store(self.first)
        settings = check_settings(self.rotator, secret_id, await self.settings())
        async with self.platform.api.workspace(caller.workspace_id) as session:
            session.add(
                SecretRotationRow(
                    workspace_id=caller.workspace_id,
                    secret_id=secret_id,
                    rotator=self.rotator,
                    settings=settings,
                    interval_seconds=86400,
                    catch_up_seconds=3600,
                    grace_seconds=self.grace_seconds,
                    retirement=self.retirement,
                    next_rotation_at=datetime.now(UTC) + timedelta(days=1),
                )
            )
        return secret_id

    async def plan(self, secret_id: str) -> SecretOperation:
        """Write the rows of a rotation and start nothing."""
        caller = await self.caller()
        async with self.platform.api.workspace(caller.workspace_id) as session:
            query = select(SecretRow).where(SecretRow.id == secret_id).with_for_update()
            secret = (await session.exec(query)).one()
            rotation = await session.get_one(SecretRotationRow, (caller.workspace_id, secret_id))
            operation = plan_rotation(session, secret, rotation, caller)
            await session.flush()
            self.requested = secret_operation_of(operation)
        return self.requested

    async def request(self) -> str:
        await self.plan(await self.make())
        return await self.start()

    async def start(self) -> str:
        await start_operation(self.platform.client, self.operation_type, self.operation)
        return self.operation.operation_id

    async def cancel(self, operation_id: str) -> None:
        assert self.operation.operation_id == operation_id
        assert await self.platform.cancel(self.operation)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert self.operation.operation_id == operation_id
        return await self.platform.end_of(self.operation, within_seconds)

    @property
    def owner_id(self) -> str:
        return self.operation.secret_id

    @property
    def operation(self) -> SecretOperation:
        assert self.requested is not None
        return self.requested

    async def secret(self) -> SecretRow:
        workspace_id = self.operation.workspace_id
        async with self.platform.api.workspace(workspace_id) as session:
            return await session.get_one(SecretRow, (workspace_id, self.operation.secret_id))

    async def versions(self) -> list[SecretVersionRow]:
        async with self.platform.api.workspace(self.operation.workspace_id) as session:
            query = select(SecretVersionRow).where(
                SecretVersionRow.secret_id == self.operation.secret_id
            )
            return list(await session.exec(query.order_by(col(SecretVersionRow.number))))

    async def value(self, version: SecretVersionRow) -> SecretValue | None:
        """Return a value; None when it is gone or never was."""
        try:
            return await asyncio.to_thread(
                self.values.read, place_of(version), new_id(Prefix.AUDIT_EVENT)
            )
        except BulkheadError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return None

    async def accepts(self, value: SecretValue) -> bool:
        """Tell whether the target accepts a value."""
        del value
        return True

    async def add_consumer(
        self, *, acknowledges: bool = False, pinned_to: int | None = None
    ) -> None:
        """Record a consumer of the secret."""
        async with self.platform.api.workspace(self.operation.workspace_id) as session:
            session.add(
                SecretReferenceRow(
                    workspace_id=self.operation.workspace_id,
                    secret_id=self.operation.secret_id,
                    consumer_type="install",
                    consumer_id="one",
                    acknowledges=acknowledges,
                    version_number=pinned_to,
                )
            )

    async def verify_done(self) -> None:
        secret, versions = await self.secret(), await self.versions()
        assert secret.active_operation_id is None
        assert secret.aliases == {CURRENT: 2, PREVIOUS: 1}
        states = {version.number: version.state for version in versions}
        assert states == {1: self.replaced, 2: VersionState.ENABLED}
        old, new = [await self.value(version) for version in versions]
        assert new is not None
        assert new != self.first
        assert await self.accepts(new)
        assert old == (None if self.replaced is VersionState.DESTROYED else self.first)
        operation = await self.platform.operation(self.operation)
        assert operation.response is not None
        assert operation.response["kept_because"] is None

    async def verify_undone(self) -> None:
        secret, versions = await self.secret(), await self.versions()
        assert secret.active_operation_id is None
        assert secret.aliases == {CURRENT: 1}
        assert [version.state for version in versions[:1]] == [VersionState.ENABLED]
        assert {version.state for version in versions[1:]} <= {VersionState.ABANDONED}
        assert self.first is not None
        assert await self.value(versions[0]) == self.first
        assert await self.accepts(self.first)
        for version in versions[1:]:
            assert await self.value(version) is None
            # Nor can an attempt that hangs somewhere still write one.
            assert await asyncio.to_thread(self.values.seal, place_of(version))

    async def clean_up(self) -> None:
        """Leave it: each request makes a secret of its own."""

    def close(self) -> None:
        self._stack.close()
        self._session.close()


class RotatingToken(Rotating):
    """A token of the workspace's API: a target with an effect, and replaced ones are destroyed."""

    rotator = RotatorKind.WORKSPACE_API_TOKEN
    kind = SecretKind.GENERIC
    retirement = Retirement.DESTROY
    replaced = VersionState.DESTROYED

    async def first_value(self) -> SecretValue:
        caller, token = await self.caller(), new_token(TokenKind.WORKSPACE)
        # The rotated token keeps the name, which tells this secret's from others'.
        self._name = uuid4().hex
        async with self.platform.api.workspace(caller.workspace_id) as session:
            session.add(
                ApiTokenRow(
                    workspace_id=caller.workspace_id,
                    id=new_id(Prefix.API_TOKEN),
                    name=self._name,
                    role=Role.MEMBER,
                    prefix=display_prefix_of(token),
                    token_hash=hash_of(token),
                    created_by=caller.principal_id,
                )
            )
        return SecretValue.of_text(token)

    async def accepts(self, value: SecretValue) -> bool:
        hashes = await self.accepted()
        return hash_of(value.text()) in hashes

    async def accepted(self) -> list[bytes]:
        """Return the hashes of this secret's tokens that the target accepts."""
        async with self.platform.api.workspace(self.operation.workspace_id) as session:
            query = select(ApiTokenRow).where(ApiTokenRow.name == self._name)
            return [row.token_hash for row in await session.exec(query)]

    async def verify_done(self) -> None:
        await super().verify_done()
        assert len(await self.accepted()) == 1

    async def verify_undone(self) -> None:
        await super().verify_undone()
        assert len(await self.accepted()) == 1


class RotatingLogin(Rotating):
    """A login of a database, which alternates between two users of a real server."""

    rotator = RotatorKind.POSTGRESQL_LOGIN
    kind = SecretKind.GENERIC

    async def first_value(self) -> SecretValue:
        self._logins = self._stack.enter_context(two_logins(self.platform.servers))
        return self._logins.current

    async def settings(self) -> dict[str, Any]:
        known = self._logins.settings
        administrator = self._logins.values.values[known["admin_secret_id"]]
        return {**known, "admin_secret_id": await self.store(administrator)}

    async def accepts(self, value: SecretValue) -> bool:
        return await asyncio.to_thread(self._logins.accepts, value)

    async def clean_up(self) -> None:
        self._stack.close()


class Draining(Rotating):
    """A consumer that is waited for, and does not acknowledge."""

    def __init__(self, platform: Platform, caller: Caller | None = None) -> None:
        super().__init__(platform, caller)
        self.grace_seconds = 1

    async def request(self) -> str:
        await self.plan(await self.make())
        await self.add_consumer(acknowledges=True)
        return await self.start()


class Finishing(Rotating):
    """The part of a rotation from which there is no way back."""

    forward_only = True
    steps = FROM_FINISH_ON


class FinishingToken(RotatingToken):
    """The same, with a target that has to refuse the replaced value."""

    forward_only = True
    steps = FROM_FINISH_ON
