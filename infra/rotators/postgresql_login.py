"""A PostgreSQL login, alternating between two users.

The value of the secret is JSON, `{"username": ..., "password": ...}`. A rotation gives the user
that is not in use a new password, so that connections of the one in use are never refused.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from domain.errors import BulkheadError, Reason
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.outbound import Outbound
from infra.rotators.fields import (
    Certificates,
    Host,
    RotatorSettings,
    SecretId,
    invalid_setting,
    read_settings,
    refuse_own_credential,
)
from infra.rotators.postgresql import Credential, Server, Session, TlsMode, connect, is_accepted
from infra.rotators.rotator import Values

_PASSWORD_BYTES: Final = 32
_CURRENT: Final = "The current value"
_NEW: Final = "The new value"
_PREVIOUS: Final = "The previous value"
_ADMINISTRATOR: Final = "The administrator's login"

# A member of a role can become it, and every role is a member of itself.
_POWERS: Final = """\
SELECT count(*), count(*) FILTER (WHERE EXISTS (
    SELECT FROM pg_roles AS held
    WHERE (held.rolsuper OR held.rolcreaterole OR held.rolreplication OR held.rolbypassrls)
        AND pg_has_role(users.oid, held.oid, 'MEMBER')))
FROM pg_roles AS users WHERE users.rolname IN (%s, %s)
"""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[^\x00]*$")]


class PostgresqlLoginSettings(RotatorSettings):
    """Where the server is, and which users take turns.

    Attributes:
        host: a name or an address; `port` and `database` where to log in.
        tls: `verify-full`, or `disable` inside the operator's own networks.
        ca: PEM roots of the server's certificate; without it the public ones count.
        user_a: one of the two users; `user_b` is the other. Both exist, with the same rights.
        admin_secret_id: a secret with the login that may change their passwords, as the same JSON.
        terminate_sessions: end the old user's connections when its password is retired.
    """

    host: Host
    port: int = Field(default=5432, ge=1, le=65535)
    database: Identifier = "postgres"
    tls: TlsMode = Field(default=TlsMode.VERIFY_FULL, strict=False)
    ca: Certificates | None = None
    user_a: Identifier
    user_b: Identifier
    admin_secret_id: SecretId
    terminate_sessions: bool = False

    @property
    def users(self) -> tuple[str, str]:
        """The two users."""
        return self.user_a, self.user_b

    @property
    def server(self) -> Server:
        """Where they log in."""
        return Server(
            host=self.host, port=self.port, database=self.database, tls=self.tls, ca=self.ca
        )


class PostgresqlLogin:
    """Rotates between two users of one server.

    Args:
        outbound: decides which addresses may be reached.
        values: reads the administrator's login.
    """

    def __init__(self, outbound: Outbound, values: Values) -> None:
        self._outbound = outbound
        self._values = values

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with their defaults."""
        checked = read_settings(PostgresqlLoginSettings, settings)
        refuse_own_credential(secret_id, checked.admin_secret_id, "admin_secret_id")
        if checked.user_a == checked.user_b:
            raise invalid_setting(
                name="user_b", message="`user_a` and `user_b` are the same: name two users."
            )
        return checked.model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """Log in with the current value, and as the administrator."""
        settings = _settings_of(rotation)
        used = _user_of(settings, current, _CURRENT)
        async with connect(self._outbound, settings.server, used, _CURRENT) as session:
            await _check_powers(session, settings)
        administrator = await self._administrator(rotation, settings)
        async with connect(self._outbound, settings.server, administrator, _ADMINISTRATOR):
            pass

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Take the other user and a random password. Nothing is changed at the server."""
        settings = _settings_of(rotation)
        used = _user_of(settings, current, _CURRENT).username
        other = settings.user_b if used == settings.user_a else settings.user_a
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        return Credential(username=other, password=password).value()

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Give the other user its new password, as the administrator.

        The current value must log in first: a server that does not know it is not the one that
        the secret belongs to, and nothing is changed there.
        """
        settings = _settings_of(rotation)
        new = _user_of(settings, pending, _NEW)
        used = _user_of(settings, current, _CURRENT)
        if new.username == used.username:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The current value was changed during the rotation and names the user that is "
                "rotated. Start another rotation.",
            )
        async with connect(self._outbound, settings.server, used, _CURRENT) as session:
            await _check_powers(session, settings)
        if await is_accepted(self._outbound, settings.server, new):
            return
        async with connect(
            self._outbound,
            settings.server,
            await self._administrator(rotation, settings),
            _ADMINISTRATOR,
        ) as session:
            await session.set_password(new.username, new.password)

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Log in with the new value, as that user and with no power over the server."""
        settings = _settings_of(rotation)
        new = _user_of(settings, pending, _NEW)
        async with connect(self._outbound, settings.server, new, _NEW) as session:
            if await session.row("SELECT current_user::text, session_user::text") != (
                new.username,
                new.username,
            ):
                raise BulkheadError(
                    Reason.CREDENTIAL_REJECTED,
                    "The new value logs in as another user than it names. Look at the user "
                    "mapping of the server, and at `ALTER ROLE ... SET role`.",
                )
            await _check_powers(session, settings)

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Take the new password away, if the server accepts it.

        A password of the other user that `set` has not reached, or that was put back, stays.
        """
        del current
        if pending is not None:
            settings = _settings_of(rotation)
            await self._refuse(rotation, settings, _user_of(settings, pending, _NEW))

    async def would_end(
        self, rotation: Rotation, pending: SecretValue, previous: SecretValue
    ) -> bool:
        """Tell whether the previous value logs in, as the user that gets a new password."""
        settings = _settings_of(rotation)
        try:
            old = Credential.of(previous, _PREVIOUS)
        except BulkheadError:
            return False
        if old.username != _user_of(settings, pending, _NEW).username:
            return False
        return await is_accepted(self._outbound, settings.server, old)

    async def put_back(
        self, rotation: Rotation, pending: SecretValue, previous: SecretValue
    ) -> None:
        """Give the user its previous password, if the server accepts the new one."""
        settings = _settings_of(rotation)
        if not await is_accepted(
            self._outbound, settings.server, _user_of(settings, pending, _NEW)
        ):
            return
        old = _user_of(settings, previous, _PREVIOUS)
        async with connect(
            self._outbound,
            settings.server,
            await self._administrator(rotation, settings),
            _ADMINISTRATOR,
        ) as session:
            await session.set_password(old.username, old.password)

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Take the old user's password away, and its connections where the settings say so."""
        del replacement
        settings = _settings_of(rotation)
        old = _user_of(settings, retired, "The replaced value")
        await self._refuse(rotation, settings, old)
        if settings.terminate_sessions:
            await self._end_sessions(rotation, settings, old.username)

    async def _refuse(
        self, rotation: Rotation, settings: PostgresqlLoginSettings, credential: Credential
    ) -> None:
        # Refused already: done by an earlier attempt, or the user has another password that is
        # not ours to take.
        if not await is_accepted(self._outbound, settings.server, credential):
            return
        async with connect(
            self._outbound,
            settings.server,
            await self._administrator(rotation, settings),
            _ADMINISTRATOR,
        ) as session:
            await session.remove_password(credential.username)

    async def _end_sessions(
        self, rotation: Rotation, settings: PostgresqlLoginSettings, username: str
    ) -> None:
        async with connect(
            self._outbound,
            settings.server,
            await self._administrator(rotation, settings),
            _ADMINISTRATOR,
        ) as session:
            await session.row(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE usename = %s AND pid <> pg_backend_pid()",
                username,
            )

    async def _administrator(
        self, rotation: Rotation, settings: PostgresqlLoginSettings
    ) -> Credential:
        value = await self._values.read(rotation, settings.admin_secret_id)
        administrator = Credential.of(value, "The administrator's secret")
        if administrator.username in settings.users:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The administrator's login is one of the two users that are rotated. Use another "
                "user, with CREATEROLE and ADMIN OPTION on both.",
            )
        return administrator


def _settings_of(rotation: Rotation) -> PostgresqlLoginSettings:
    return read_settings(PostgresqlLoginSettings, rotation.settings)


def _user_of(settings: PostgresqlLoginSettings, value: SecretValue, what: str) -> Credential:
    credential = Credential.of(value, what)
    if credential.username not in settings.users:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"{what} is a login of neither of the two users of the rotation's settings. Add a "
            "version with one of them, make it `current`, and rotate again.",
        )
    return credential


async def _check_powers(session: Session, settings: PostgresqlLoginSettings) -> None:
    """Refuse to rotate users that could do more than use a database."""
    row = await session.row(_POWERS, *settings.users)
    if row is None or row[0] != len(settings.users):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "One of the two users of the rotation does not exist at the server. Create it with the "
            "rights of the other.",
        )
    if row[1]:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "One of the two users of the rotation has power over the server (superuser, creating "
            "roles, replication, or passing row-level security), its own or another role's. Take "
            "that away: what is rotated is an application's login.",
        )
