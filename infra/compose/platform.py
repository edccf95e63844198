"""Brings the database to the newest state, makes the first owner, and says how to reach the API."""

from pathlib import Path

import httpx
import psycopg
from pydantic_settings import BaseSettings, SettingsConfigDict

from domain.errors import BulkheadError, Reason
from infra.compose.volumes import Volumes
from infra.database.bootstrap import bootstrap
from infra.database.engine import DatabaseRole
from infra.embedded.home import Home
from infra.embedded.owner import ensure_owner
from infra.openbao.operator import Operator
from infra.openbao.setup import PLATFORM_MOUNT
from infra.settings import DatabaseSettings, OpenBaoSettings
from infra.supervisor.files import write_atomically

_ADMINISTRATOR = "postgres"
_TIMEOUT_SECONDS = 5


class PlatformSettings(BaseSettings):
    """What the service `platform` reads: where the servers are, and where clients find the API."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore")

    database: DatabaseSettings
    openbao_address: str
    public_url: str


def prepare_platform(volumes: Volumes, settings: PlatformSettings) -> None:
    """Make roles, database, tables and the first owner, and keep the platform's authority.

    OpenBao's root namespace is brought up to this version's.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when a server does not answer, FAILED_PRECONDITION
            when OpenBao does not know the operator.
    """
    password = volumes.administrator_password.read_text()
    try:
        with _connect(settings.database, "postgres", password) as administrator:
            bootstrap(administrator, settings.database)
        with _connect(settings.database, settings.database.name, password) as administrator:
            ensure_owner(home_of(volumes), settings.database, administrator, settings.public_url)
    except psycopg.OperationalError as error:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"PostgreSQL on {settings.database.host} does not take our connection; look at its"
            " log (docker compose logs postgresql) and run `docker compose up` again.",
        ) from error
    operator = Operator(
        OpenBaoSettings(
            address=settings.openbao_address,
            login_key_file=volumes.operator / "operator.key",
        )
    )
    operator.ensure_set_up(volumes.operator)
    operator.close()
    write_atomically(home_of(volumes).ca_file, _authority(settings.openbao_address))
    volumes.openbao_is_set_up.touch(mode=0o600)


def home_of(volumes: Volumes) -> Home:
    """Return where the first owner's token and the platform's authority are kept."""
    return Home(volumes.setup)


def owner_lines(volumes: Volumes) -> str:
    """Return address and token as the terminal client reads them.

    The path of the authority's certificate is left out: it is one inside of the container.
    """
    lines = _read(home_of(volumes).owner_file).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("BULKHEAD_CA_FILE="))


def prepared_database(settings: PlatformSettings) -> DatabaseSettings:
    """Return the database, whose roles a start has made.

    Raises:
        BulkheadError: FAILED_PRECONDITION where there was none yet.
    """
    _read(Path(settings.database.passwords_dir, DatabaseRole.OWNER))
    return settings.database


def authority_certificate(volumes: Volumes) -> str:
    """Return the certificate of the platform's authority, which clients of the API trust."""
    return _read(home_of(volumes).ca_file)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The platform was never started here; run `docker compose up --detach --wait` first.",
        ) from None


def _connect(settings: DatabaseSettings, database: str, password: str) -> psycopg.Connection:
    return psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=_ADMINISTRATOR,
        password=password,
        dbname=database,
        connect_timeout=_TIMEOUT_SECONDS,
        autocommit=True,
    )


def _authority(openbao_address: str) -> str:
    try:
        with httpx.Client(trust_env=False, timeout=_TIMEOUT_SECONDS) as client:
            answer = client.get(f"{openbao_address}/v1/{PLATFORM_MOUNT}/ca/pem").raise_for_status()
    except httpx.HTTPError as error:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"OpenBao at {openbao_address} does not give the platform's authority ({error}); look"
            " at its log (docker compose logs openbao) and run `docker compose up` again.",
        ) from error
    return answer.text.strip() + "\n"
