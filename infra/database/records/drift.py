"""Reports of how a machine's server and its network differ from what their stacks say."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from domain.compute import DRIFT_REPORT_KEPT_DAYS, DriftRequest, DriftState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.stack import StackKind, StackState
from infra.database.engine import Database
from infra.database.tables import DriftReportRow, MachineRow, StackRow

SCHEDULE: Final = "detect-drift"

# How old a machine's newest report gets before the clock has another one written.
_EVERY: Final = timedelta(hours=6)

# Of one pass, which comes every quarter of an hour: each is a run of the engine of some seconds.
_REPORTS_A_PASS: Final = 20

# One of each workspace before a second one of any; in no order, so that machines that cannot be
# compared now do not keep the others waiting.
_DUE: Final = text("""
SELECT workspace_id, id FROM (
    SELECT m.workspace_id, m.id,
        row_number() OVER (PARTITION BY m.workspace_id ORDER BY random()) AS turn
    FROM machines m
    JOIN stacks s ON s.workspace_id = m.workspace_id AND s.machine_id = m.id
        AND s.kind = 'machine' AND s.state = 'present'
    LEFT JOIN LATERAL (SELECT max(d.created_at) AS at FROM drift_reports d
        WHERE d.workspace_id = m.workspace_id AND d.machine_id = m.id) newest ON true
    WHERE m.kind = 'cloud' AND m.state = 'ACTIVE' AND m.active_operation_id IS NULL
        AND coalesce(newest.at, m.updated_at) < now() - :every
) due ORDER BY turn, random() LIMIT :most
""")


class DriftRecords:
    """Finds machines with the sweeper's role, and writes in the workspace of each."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper

    async def due(self) -> list[DriftRequest]:
        """Return reports that are to be written, and forget those whose time is over."""
        async with self._sweeper.transaction() as session:
            rows = (await session.execute(_DUE, {"every": _EVERY, "most": _REPORTS_A_PASS})).all()
        for workspace_id in {workspace_id for workspace_id, _ in rows}:
            async with self._database.workspace(workspace_id) as session:
                await session.execute(
                    delete(DriftReportRow).where(col(DriftReportRow.expires_at) < func.now())
                )
        return [
            DriftRequest(
                workspace_id=workspace_id,
                machine_id=machine_id,
                report_id=new_id(Prefix.DRIFT_REPORT),
                trigger=SCHEDULE,
            )
            for workspace_id, machine_id in rows
        ]

    async def stack_of(self, request: DriftRequest) -> StackRow | None:
        """Return the stack whose drift is asked for; None: the report is written already.

        Raises:
            BulkheadError: NOT_FOUND when the machine is gone; FAILED_PRECONDITION when it has no
                server, or another operation works on it.
        """
        async with self._database.workspace(request.workspace_id) as session:
            key = (request.workspace_id, request.report_id)
            if await session.get(DriftReportRow, key) is not None:
                return None
            machine = await session.get(MachineRow, (request.workspace_id, request.machine_id))
            if machine is None:
                raise BulkheadError(Reason.NOT_FOUND, "The machine is gone.")
            query = select(StackRow).where(
                StackRow.kind == StackKind.MACHINE,
                StackRow.machine_id == machine.id,
                StackRow.state == StackState.PRESENT,
            )
            stack = (await session.exec(query)).one_or_none()
            if stack is None or machine.active_operation_id is not None:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    f"The machine is {machine.state} and there is no server of it that stays as it "
                    "is. Ask again when it is ACTIVE and nothing runs on it.",
                    metadata={"state": machine.state},
                )
            return stack

    async def write(
        self,
        request: DriftRequest,
        delta: Mapping[str, Any],
        snapshot: Mapping[str, Any],
        started_at: datetime,
    ) -> None:
        """Write a report, once; nothing for a machine that is gone meanwhile.

        Args:
            request: which report.
            delta: by logical name, what differs; empty: nothing does.
            snapshot: the provider's own attributes of the server.
            started_at: when the account was asked.
        """
        values = {
            "workspace_id": request.workspace_id,
            "id": request.report_id,
            "machine_id": request.machine_id,
            "state": DriftState.DRIFTED if delta else DriftState.IN_SYNC,
            "trigger": request.trigger,
            "delta": dict(delta),
            "provider_snapshot": dict(snapshot),
            "version": 1,
            "started_at": started_at,
            "expires_at": datetime.now(UTC) + timedelta(days=DRIFT_REPORT_KEPT_DAYS),
        }
        async with self._database.workspace(request.workspace_id) as session:
            query = select(MachineRow.id).where(MachineRow.id == request.machine_id)
            if (await session.exec(query.with_for_update(read=True))).one_or_none() is not None:
                await session.execute(
                    insert(DriftReportRow).values(**values).on_conflict_do_nothing()
                )
