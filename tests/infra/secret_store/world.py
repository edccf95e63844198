"""Secrets on a real database and a real OpenBao, made as the API makes them, and looked at."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller, PrincipalKind, Role, system_caller
from domain.identifiers import Prefix, new_id
from domain.names import value_path_of
from domain.secret import SecretKind, SecretPlace, SecretValue, VersionPlace, VersionState
from infra.database.engine import Database, DatabaseRole
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import (
    begin_destroying,
    begin_purging,
    begin_secret,
    begin_version,
    complete_destroying,
    complete_version,
    place_of,
    soft_delete,
)
from infra.database.tables import AuditEventRow, SecretRow, SecretVersionRow, WorkspaceRow
from infra.openbao.client import OpenBao
from infra.openbao.values import Presence
from infra.secret_store.cross_check import CrossCheck
from infra.secret_store.purges import SecretPurges
from infra.secret_store.quarantine import Quarantine
from infra.secret_store.restore_guard import RestoreGuard
from infra.secret_store.settlement import Settlement
from infra.settings import DatabaseSettings, OpenBaoSettings
from tests.infra.secret_store.faults import (
    Faults,
    FaultyDatabase,
    FaultyLedger,
    make_faulty,
)


@dataclass
class Secret:
    """A secret, and what each of its versions was given."""

    place: SecretPlace
    values: dict[str, SecretValue] = field(default_factory=dict)

    def version(self, version_id: str) -> VersionPlace:
        return VersionPlace(
            workspace_id=self.place.workspace_id,
            secret_id=self.place.secret_id,
            version_id=version_id,
        )


class World:
    """One process's clients, whose every call may be its last, and a steady hand beside them."""

    def __init__(
        self,
        database: DatabaseSettings,
        openbao: OpenBaoSettings,
        directory: Path,
        administrator: psycopg.Connection,
    ) -> None:
        self.faults = Faults()
        self.administrator = administrator
        self.database = FaultyDatabase(database, DatabaseRole.WORKER, self.faults)
        self.sweeper = FaultyDatabase(database, DatabaseRole.SWEEPER, self.faults)
        self.api = Database(database, DatabaseRole.API)
        self.openbao = OpenBao(openbao)
        make_faulty(self.openbao, self.faults)
        self.values = self.openbao.values
        self.ledger_file = directory / "tombstones.jsonl"
        self.ledger = FaultyLedger(self.ledger_file)
        self.ledger.faults = self.faults
        self.restored_at_file = directory / "restored-at"
        at_once = timedelta(0)
        self.settlement = Settlement(
            self.database, self.sweeper, self.openbao, settled_after=at_once
        )
        self.purges = SecretPurges(
            self.database, self.sweeper, self.values, self.ledger, settled_after=at_once
        )
        self.quarantine = Quarantine(self.database, self.sweeper, self.openbao)
        self.guard = RestoreGuard(
            self.database, self.sweeper, self.openbao, self.ledger, self.restored_at_file
        )

    def cross_check(self, *devices: Path) -> CrossCheck:
        return CrossCheck(self.database, self.sweeper, devices)

    async def close(self) -> None:
        self.openbao.close()
        for database in (self.database, self.sweeper, self.api):
            await database.close()

    async def new_workspace(self, *, with_a_place: bool = True) -> Caller:
        caller = Caller(
            kind=PrincipalKind.USER,
            principal_id=new_id(Prefix.USER),
            workspace_id=new_id(Prefix.WORKSPACE),
            role=Role.OWNER,
        )
        async with self.api.workspace(caller.workspace_id) as session:
            session.add(
                WorkspaceRow(id=caller.workspace_id, name="test", slug=caller.workspace_id[-30:])
            )
        if with_a_place:
            await asyncio.to_thread(self.openbao.ensure_secret_space, caller.workspace_id)
        return caller

    async def new_secret(self, caller: Caller, *, versions: int = 1) -> Secret:
        """Make a secret; its last version is not `current` unless it is the only one."""
        secret = Secret(SecretPlace(workspace_id=caller.workspace_id, secret_id=""))
        await self.create(caller, secret)
        for _ in range(versions - 1):
            await self.add(secret)
        return secret

    async def create(self, caller: Caller, secret: Secret) -> None:
        """Create a secret as the API does: intent, value, finalised."""
        async with self.database.workspace(caller.workspace_id) as session:
            version = await begin_secret(
                session, NewRows(), caller, name=new_id(Prefix.SECRET), kind=SecretKind.GENERIC
            )
            secret.place = SecretPlace(
                workspace_id=caller.workspace_id, secret_id=version.secret_id
            )
            value = secret.values[version.id] = fresh_value()
        await self.store(place_of(version), value)

    async def add(self, secret: Secret) -> None:
        """Add a version as the API does."""
        async with self.database.workspace(secret.place.workspace_id) as session:
            version = await begin_version(
                session, NewRows(), secret.place.workspace_id, secret.place.secret_id
            )
            value = secret.values[version.id] = fresh_value()
        await self.store(place_of(version), value)

    async def begin_pending(self, secret: Secret) -> None:
        """Make a version as a rotation does, of which nothing else is there any more."""
        async with self.database.workspace(secret.place.workspace_id) as session:
            version = await begin_version(
                session,
                NewRows(),
                secret.place.workspace_id,
                secret.place.secret_id,
                state=VersionState.PENDING,
                operation_id=new_id(Prefix.OPERATION),
            )
            value = secret.values[version.id] = fresh_value()
        await asyncio.to_thread(self.values.write, place_of(version), value, audit_id="aud_x")

    async def store(self, place: VersionPlace, value: SecretValue) -> None:
        """Do what follows an intent, for the first or for the second time."""
        audit_id = await self.audited(place, "secret_version.resume")
        await asyncio.to_thread(self.values.write, place, value, audit_id=audit_id)
        async with self.database.workspace(place.workspace_id) as session:
            await complete_version(session, place)

    async def destroy(self, secret: Secret, version_id: str) -> None:
        """Destroy a version as the API does."""
        place = secret.version(version_id)
        async with self.database.workspace(place.workspace_id) as session:
            await self.hold(session, secret)
            version = await session.get_one(SecretVersionRow, (place.workspace_id, version_id))
            if version.state in {VersionState.ENABLED, VersionState.DISABLED}:
                await begin_destroying(session, version)
                add_audit_event(
                    session,
                    system_caller(place.workspace_id, "test"),
                    "secret_version.destroy",
                    "secret",
                    place.secret_id,
                    details={"version_id": version_id},
                )
        await asyncio.to_thread(self.values.destroy, place)
        async with self.database.workspace(place.workspace_id) as session:
            await complete_destroying(session, place)

    async def purge(self, secret: Secret) -> None:
        """Do what `PurgeSecret` does."""
        async with self.database.workspace(secret.place.workspace_id) as session:
            await begin_purging(session, secret.place.secret_id)
        await self.purges.purge_values(secret.place)
        await self.purges.record(secret.place)

    async def soft_delete(self, secret: Secret) -> None:
        async with self.database.workspace(secret.place.workspace_id) as session:
            await soft_delete(session, await self.hold(session, secret))

    async def hold(self, session: AsyncSession, secret: Secret) -> SecretRow:
        query = select(SecretRow).where(SecretRow.id == secret.place.secret_id)
        return (await session.exec(query.with_for_update())).one()

    async def audited(self, place: VersionPlace, action: str = "secret_version.access") -> str:
        """Commit an audit line that allows to read a version, and return its id."""
        event_id = new_id(Prefix.AUDIT_EVENT)
        caller = Caller(
            kind=PrincipalKind.USER,
            principal_id=new_id(Prefix.USER),
            workspace_id=place.workspace_id,
            role=Role.OWNER,
        )
        async with self.database.workspace(place.workspace_id) as session:
            add_audit_event(
                session,
                caller,
                action,
                "secret",
                place.secret_id,
                event_id=event_id,
                details={"version_id": place.version_id},
            )
        return event_id

    async def events(self, workspace_id: str, action: str) -> list[AuditEventRow]:
        async with self.api.workspace(workspace_id) as session:
            query = select(AuditEventRow).where(AuditEventRow.action == action)
            return list(await session.exec(query.order_by(col(AuditEventRow.id))))

    async def row(self, secret: Secret) -> SecretRow | None:
        async with self.api.workspace(secret.place.workspace_id) as session:
            key = (secret.place.workspace_id, secret.place.secret_id)
            return await session.get(SecretRow, key)

    async def versions(self, secret: Secret) -> list[SecretVersionRow]:
        async with self.api.workspace(secret.place.workspace_id) as session:
            query = select(SecretVersionRow).where(
                SecretVersionRow.secret_id == secret.place.secret_id
            )
            return list(await session.exec(query.order_by(col(SecretVersionRow.number))))

    async def look(self, secret: Secret, version_id: str) -> Presence:
        return await asyncio.to_thread(self.values.look, secret.version(version_id))

    async def violations(self, secret: Secret) -> list[str]:
        """Return what is wrong with a secret at rest, of all that may never be."""
        row, versions = await self.row(secret), await self.versions(secret)
        names = await asyncio.to_thread(self.values.names, secret.place.workspace_id)
        own = secret.place.secret_id.rsplit("_", 1)[-1]
        stored = {f"secv_{version}" for folder, version in names if folder == own}
        wrong: list[str] = []
        known = {version.id for version in versions}
        # Of a secret that was never seen the sealed place stays for a day.
        looks = [await self.look(secret, unknown) for unknown in stored - known]
        wrong += ["a value that no row knows"] * looks.count(Presence.VALUE)
        if row is None:
            return [*wrong, *(["versions without a secret"] if versions else [])]
        numbers = [version.number for version in versions]
        if numbers != list(range(1, row.last_version_number + 1)):
            wrong.append(f"numbers are not dense: {numbers} of {row.last_version_number}")
        for version in versions:
            wrong += await self._wrong_with(secret, version)
        current = row.aliases.get("current")
        if row.state == "active" and current not in numbers:
            wrong.append(f"current is {current}")
        return wrong

    async def _wrong_with(self, secret: Secret, version: SecretVersionRow) -> list[str]:
        presence = await self.look(secret, version.id)
        match version.state:
            case VersionState.ENABLED | VersionState.DISABLED:
                if presence is not Presence.VALUE:
                    return [f"version {version.number} is {version.state} without a value"]
                audit_id = await self.audited(place_of(version))
                found = await asyncio.to_thread(self.values.read, place_of(version), audit_id)
                if found != secret.values[version.id]:
                    return [f"version {version.number} has another value"]
            case VersionState.DESTROYED | VersionState.ABANDONED:
                if presence is Presence.VALUE:
                    return [f"version {version.number} is {version.state} and has a value"]
            case _:
                return [f"version {version.number} is still {version.state}"]
        return []

    def overwrite_states(self, statement: str, *values: object) -> None:
        """Change rows as nobody of ours may: time passes, or a backup is put back."""
        self.administrator.execute(statement, values)


def fresh_value() -> SecretValue:
    return SecretValue(new_id(Prefix.REQUEST).encode())


def path_of(place: VersionPlace) -> str:
    return f"secrets/data/{value_path_of(place)}"
