"""A login of a database whose other user is in use too, as `previous`."""

import asyncio

from psycopg import sql

from domain.secret import CURRENT, PREVIOUS, SecretValue, VersionState
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import begin_version, complete_version, place_of
from infra.database.tables import SecretRow
from tests.infra.rotators.logins import OTHER_PASSWORD, login_value
from tests.workflows.secret.scenarios import RotatingLogin


class AlternatingLogin(RotatingLogin):
    """Version 1 is `current`, version 2 `previous`; a rotation gives its user a new password."""

    async def make(self) -> str:
        secret_id, caller = await super().make(), await self.caller()
        async with self.platform.api.workspace(caller.workspace_id) as session:
            version = await begin_version(session, NewRows(), caller.workspace_id, secret_id)
        await asyncio.to_thread(self.values.write, place_of(version), self.previous)
        async with self.platform.api.workspace(caller.workspace_id) as session:
            await complete_version(session, place_of(version))
            secret = await session.get_one(SecretRow, (caller.workspace_id, secret_id))
            secret.aliases = {CURRENT: 1, PREVIOUS: 2}
        return secret_id

    @property
    def previous(self) -> SecretValue:
        """The value of version 2."""
        return login_value(self._logins.b, OTHER_PASSWORD)

    async def give_other_user_a_password(self, password: str) -> None:
        """Change the password of the user of version 2 at the server, past the platform."""
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(self._logins.b), sql.Literal(password)
        )
        with self.platform.servers.administrator("postgres") as administrator:
            administrator.execute(statement)

    async def verify_done(self) -> None:
        secret, versions = await self.secret(), await self.versions()
        assert secret.active_operation_id is None
        assert secret.aliases == {CURRENT: 3, PREVIOUS: 1}
        assert [version.state for version in versions] == [VersionState.ENABLED] * 3
        first, _, new = [await self.value(version) for version in versions]
        assert first is not None
        assert new is not None
        assert [await self.accepts(value) for value in (first, self.previous, new)] == [
            True,
            False,
            True,
        ]

    async def verify_undone(self) -> None:
        await self.verify_taken_back()
        assert await self.accepts(self.previous)

    async def verify_taken_back(self) -> None:
        """Everything is as it was, whatever became of the previous value at the target."""
        secret, versions = await self.secret(), await self.versions()
        assert secret.active_operation_id is None
        assert secret.aliases == {CURRENT: 1, PREVIOUS: 2}
        assert {version.state for version in versions[2:]} <= {VersionState.ABANDONED}
        assert [await self.value(version) for version in versions] == [
            self.first,
            self.previous,
            *[None] * len(versions[2:]),
        ]
        assert self.first is not None
        assert await self.accepts(self.first)
