"""The right to join of a server that the platform makes, and the user data that carries it.

The token is the stack's own secret in OpenBao, so that an attempt that comes later gives the server
the one that an earlier attempt has perhaps already given it. Its row names the machine that it is
for: the server becomes that one.
"""

import asyncio
from datetime import timedelta
from typing import Final

from sqlalchemy import func, update
from sqlmodel import col, select

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.owned_operation import MachineOperation
from domain.tokens import TokenKind, hash_of, new_token
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.tables import MachineRow, StackRow, WorkerBootstrapRow
from infra.node_setup import bootstrap_cloud_init
from infra.openbao.client import OpenBao
from infra.settings import StackSettings

_SECRET: Final = "bootstrap"  # noqa: S105 - the name of one

# From each attempt to make the server: a boot takes minutes.
_GOOD_FOR: Final = timedelta(hours=1)


class ServerBootstraps:
    """Of one worker's stacks."""

    def __init__(self, database: Database, openbao: OpenBao, settings: StackSettings) -> None:
        self._database = database
        self._openbao = openbao
        self._settings = settings

    async def user_data(self, operation: MachineOperation, stack: StackRow) -> str:
        """Return the cloud-init document with which a stack's server joins as the machine.

        Raises:
            BulkheadError: FAILED_PRECONDITION where servers cannot reach the platform, or somebody
                revoked the bootstrap.
        """
        url, authority = await asyncio.to_thread(self._address)
        token = await asyncio.to_thread(
            self._openbao.ensure_stack_secret,
            stack.workspace_id,
            stack.id,
            _SECRET,
            lambda: new_token(TokenKind.WORKER_BOOTSTRAP),
        )
        await self._have_row(operation, stack, hash_of(token))
        return bootstrap_cloud_init(url, authority, token)

    async def forget(self, stack: StackRow) -> None:
        """Have the token join nothing any more, and keep it nowhere."""
        async with self._database.workspace(stack.workspace_id) as session:
            query = update(WorkerBootstrapRow).where(
                col(WorkerBootstrapRow.machine_id) == stack.machine_id,
                col(WorkerBootstrapRow.used_at).is_(None),
                col(WorkerBootstrapRow.revoked_at).is_(None),
            )
            await session.execute(
                query.values(
                    revoked_at=func.clock_timestamp(),
                    updated_at=func.clock_timestamp(),
                    version=col(WorkerBootstrapRow.version) + 1,
                )
            )
        await asyncio.to_thread(
            self._openbao.remove_stack_secret, stack.workspace_id, stack.id, _SECRET
        )

    def _address(self) -> tuple[str, str]:
        url, file = self._settings.node_url, self._settings.node_authority_file
        if url is None or file is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "Servers have no address at which they reach the platform. Set STACKS__NODE_URL "
                "and STACKS__NODE_AUTHORITY_FILE of the worker.",
            )
        # As it is served, so that its hash is the same.
        return url.rstrip("/"), file.read_text().strip() + "\n"

    async def _have_row(
        self, operation: MachineOperation, stack: StackRow, token_hash: bytes
    ) -> None:
        async with self._database.workspace(stack.workspace_id) as session:
            machine = await session.get_one(
                MachineRow, (stack.workspace_id, stack.machine_id), with_for_update=True
            )
            query = select(WorkerBootstrapRow).where(WorkerBootstrapRow.token_hash == token_hash)
            row = (await session.exec(query)).one_or_none()
            now = (await session.exec(select(func.clock_timestamp()))).one()
            if row is not None and row.revoked_at is not None:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    "The bootstrap of this machine's server was revoked, so that no server made "
                    "with it could join. Ask for another machine.",
                    metadata={"worker_bootstrap_id": row.id},
                )
            if row is not None:
                row.expires_at = now + _GOOD_FOR
                return
            row = WorkerBootstrapRow(
                workspace_id=stack.workspace_id,
                id=new_id(Prefix.WORKER_BOOTSTRAP),
                cluster_id=stack.cluster_id,
                token_hash=token_hash,
                created_by=operation.caller.principal_id,
                expires_at=now + _GOOD_FOR,
                machine_id=machine.id,
            )
            session.add(row)
            machine.bootstrap_id = row.id
            add_audit_event(
                session,
                operation.caller,
                "worker_bootstrap.create",
                "worker_bootstrap",
                row.id,
                details={"operation_id": operation.operation_id, "machine_id": machine.id},
            )
