from datetime import UTC, datetime

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from domain.operation import StepStatus
from infra.database.engine import Database, DatabaseRole
from infra.database.records.new_rows import NewRows
from infra.database.tables import ApiTokenRow, AuditEventRow, OperationStepRow
from tests.infra.database.tenants import Tenants


async def test_rows_of_several_tables_are_written_as_they_are(tenants: Tenants) -> None:
    tenant = tenants.new_tenant()
    token = ApiTokenRow(
        workspace_id=tenant.workspace,
        id=new_id(Prefix.API_TOKEN),
        name='Ünï "quoted" \\ %s',
        role=Role.ADMIN,
        prefix="x",
        token_hash=bytes(range(32)),
        created_by=tenant.user,
        expires_at=datetime(2099, 1, 2, 3, 4, 5, 678901, UTC),
    )
    audit = AuditEventRow(
        workspace_id=tenant.workspace,
        id=new_id(Prefix.AUDIT_EVENT),
        actor_kind="user",
        actor_id=tenant.user,
        action="test.write",
        resource_type="api_token",
        resource_id=token.id,
        outcome="allowed",
        details={"nested": [1, None, "\u2028"]},
    )
    steps = [
        OperationStepRow(
            workspace_id=tenant.workspace,
            operation_id=tenant.operation,
            name=f"step_{position}",
            position=position,
            status=StepStatus.PENDING,
        )
        for position in (1, 2)
    ]
    rows = NewRows()
    for row in (*steps, audit, token):
        rows.add(row)
    database = Database(tenants.settings, DatabaseRole.API)
    async with database.workspace(tenant.workspace) as session:
        await rows.write(session)
        await rows.write(session)
    async with database.workspace(tenant.workspace) as session:
        written = await session.get_one(ApiTokenRow, (tenant.workspace, token.id))
        assert written.model_dump() == token.model_dump()
        line = await session.get_one(AuditEventRow, (tenant.workspace, audit.id))
        assert line.model_dump() == audit.model_dump()
        key = (tenant.workspace, tenant.operation, "step_2")
        assert (await session.get_one(OperationStepRow, key)).position == 2
    await database.close()
