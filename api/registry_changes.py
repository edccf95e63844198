"""What requests change about registry connections; their credentials are secrets of their own."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import TypedDict

from api.fields import check_id, not_found
from api.scope import RequestScope
from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.package import REGISTRY_CONNECTION_CONSUMER, RegistryAuthentication
from domain.registry import connection_for
from domain.secret import SecretKind, SecretState, SecretValue
from infra.database.queries.package import find_connection
from infra.database.queries.secret import find_secret
from infra.database.records.new_rows import NewRows
from infra.database.records.reference import Reference, register_reference, remove_reference
from infra.database.records.secret import begin_secret, soft_delete
from infra.database.tables import (
    PackageRow,
    RegistryConnectionRow,
    SecretRow,
    SecretVersionRow,
)
from infra.database.tables.columns import unix, unix_or_none

# Of the secret: which connection it was made for.
CONNECTION_LABEL: Final = "registry_connection"

# As many packages as an error's sentence can name.
_NAMED: Final = 5


class ConnectionBody(TypedDict):
    """The contract's RegistryCredential; never a credential."""

    id: str
    name: str
    registry_url: str
    type: RegistryAuthentication
    is_active: bool
    created_at: int
    last_used_at: int | None


@dataclass(slots=True, kw_only=True)
class NewConnection:
    """A registry connection that shall be, with the secret that has its credential."""

    value: SecretValue
    name: str
    registry_url: str
    type: RegistryAuthentication
    action: str = "registry_connection.create"
    secret_id: str = ""
    _id: str = field(default_factory=lambda: new_id(Prefix.REGISTRY_CONNECTION), init=False)

    async def begin(self, session: AsyncSession, rows: NewRows, caller: Caller) -> SecretVersionRow:
        """Write the intent of the secret.

        Raises:
            BulkheadError: CONFLICT for a name that is taken.
        """
        query = select(RegistryConnectionRow.id).where(RegistryConnectionRow.name == self.name)
        if (await session.exec(query)).first() is not None:
            raise _name_is_taken()
        return await begin_secret(
            session,
            rows,
            caller,
            # A deleted secret keeps its name, and another connection may be called the same.
            name=f"{self.name} ({self._id})",
            kind=SecretKind.OCI_REGISTRY,
            description="The credential of a registry connection, which is deleted with it.",
            labels={CONNECTION_LABEL: self._id},
        )

    async def probe(self) -> None:
        """Nothing is asked: a registry tells nothing without an image or a chart."""

    async def finish(self, session: AsyncSession, version: SecretVersionRow) -> ConnectionBody:
        """Add the connection, and register it with its secret.

        Raises:
            BulkheadError: ABORTED when the secret was deleted meanwhile; CONFLICT for a name that
                was taken meanwhile.
        """
        secret = await find_secret(session, version.secret_id, lock=True)
        if secret is None or secret.state is not SecretState.ACTIVE:
            raise BulkheadError(
                Reason.ABORTED,
                "The secret of the connection was deleted while it was being made. Create it "
                "again.",
            )
        connection = RegistryConnectionRow(
            workspace_id=secret.workspace_id,
            id=secret.labels[CONNECTION_LABEL],
            name=self.name,
            registry_url=self.registry_url,
            type=self.type,
            secret_id=secret.id,
        )
        rows = NewRows()
        rows.add(connection)
        try:
            await rows.write(session)
        except IntegrityError:
            raise _name_is_taken() from None
        await register_reference(
            session,
            Reference(
                workspace_id=secret.workspace_id,
                secret_id=secret.id,
                consumer_type=REGISTRY_CONNECTION_CONSUMER,
                consumer_id=connection.id,
            ),
        )
        return connection_body(connection, secret)


async def delete(scope: RequestScope, connection_id: str) -> None:
    """Remove a connection, its reference, and the secret that was made for it.

    The secret can be restored like every other one.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION while packages need it.
    """
    known = check_id(Prefix.REGISTRY_CONNECTION, connection_id)
    connection = await find_connection(scope.session, known, lock=True)
    if connection is None:
        raise not_found(Prefix.REGISTRY_CONNECTION)
    await _refuse_needed(scope, connection)
    secret = await find_secret(scope.session, connection.secret_id, lock=True)
    await remove_reference(
        scope.session, connection.secret_id, REGISTRY_CONNECTION_CONSUMER, connection.id
    )
    if secret is not None and secret.labels.get(CONNECTION_LABEL) == connection.id:
        await soft_delete(scope.session, secret)
        scope.audit("secret.delete", "secret", secret.id, force="false")
    await scope.session.delete(connection)
    scope.audit(
        "registry_connection.delete",
        "registry_connection",
        connection.id,
        secret_id=connection.secret_id,
    )


async def secrets_of(
    session: AsyncSession, connections: list[RegistryConnectionRow]
) -> dict[str, SecretRow]:
    """Return the secrets of connections, by their ids."""
    wanted = [connection.secret_id for connection in connections]
    rows = await session.exec(select(SecretRow).where(col(SecretRow.id).in_(wanted)))
    return {row.id: row for row in rows}


def connection_body(row: RegistryConnectionRow, secret: SecretRow | None) -> ConnectionBody:
    """Render a connection, which is active while its secret is."""
    has_secret = secret is not None and secret.state is SecretState.ACTIVE
    return ConnectionBody(
        id=row.id,
        name=row.name,
        registry_url=row.registry_url,
        type=row.type,
        is_active=row.is_active and has_secret,
        created_at=unix(row.created_at),
        last_used_at=unix_or_none(row.last_used_at),
    )


async def _refuse_needed(scope: RequestScope, connection: RegistryConnectionRow) -> None:
    connections = (await scope.session.exec(select(RegistryConnectionRow))).all()
    others = [each for each in connections if each.id != connection.id]
    packages = (await scope.session.exec(select(PackageRow))).all()
    needing = [
        package
        for package in packages
        if connection_for(package.source_url, connections) is connection
        and connection_for(package.source_url, others) is None
    ]
    if not needing:
        return
    more = " and more" if len(needing) > _NAMED else ""
    names = ", ".join(package.id for package in needing[:_NAMED])
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The charts of {len(needing)} packages are read with this connection ({names}{more}). "
        "Delete them, or make another connection to the same address first; to end a credential "
        "that has leaked, add a version to its secret and disable this one.",
        path=("path", "id"),
        metadata={
            "package_ids": ",".join(package.id for package in needing[:_NAMED]),
            "secret_id": connection.secret_id,
        },
    )


def _name_is_taken() -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        "A registry connection of this name exists. Take another name, or delete that one.",
        path=("body", "name"),
    )
