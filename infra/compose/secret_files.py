"""Makes every secret once, and gives each process its own copy of what it needs."""

import os
import secrets
import shutil
from pathlib import Path

from infra.compose.volumes import OPENBAO_DIRECTORY, OPENBAO_PORT, Users, Volumes
from infra.database.bootstrap import ensure_password_files
from infra.database.engine import DatabaseRole
from infra.openbao.server import write_server_configuration
from infra.openbao.setup import ROOT_LOGINS
from infra.supervisor.files import write_atomically

# Of each login in OpenBao's root namespace.
_MADE_OF = ("pub", "hcl")

_ROLES_OF_API = (DatabaseRole.API,)
_ROLES_OF_WORKER = (DatabaseRole.WORKER, DatabaseRole.SWEEPER)


def write_secrets(
    volumes: Volumes, users: Users, openbao: Path = OPENBAO_DIRECTORY, *, openbao_runs: bool
) -> None:
    """Fill the volumes; what exists is kept, and copied anew where a copy is missing.

    Args:
        volumes: where they are mounted.
        users: who reads what.
        openbao: OpenBao's folder, at the path at which its container has it too.
        openbao_runs: whether its server answers; the store of one that does is never touched.
    """
    ensure_password_files(volumes.passwords)
    if not volumes.administrator_password.exists():
        write_atomically(volumes.administrator_password, secrets.token_urlsafe(32))
    if not openbao_runs:
        _forget_half_made_store(volumes, openbao)
    write_server_configuration(
        openbao,
        port=OPENBAO_PORT,
        cluster_port=OPENBAO_PORT + 1,
        bind_address="0.0.0.0",  # noqa: S104 - in its container; only the internal network is there
    )
    made_of = [openbao / f"{login.principal}.{end}" for login in ROOT_LOGINS for end in _MADE_OF]
    _copy([openbao / "operator.key", *made_of], volumes.operator, users.setup)
    _give(openbao, users.openbao)
    _copy([volumes.administrator_password], volumes.postgresql, users.postgresql)
    _give(volumes.postgresql, users.postgresql)
    for directory, user, roles, key in (
        (volumes.api, users.api, _ROLES_OF_API, openbao / "api.key"),
        (volumes.worker, users.worker, _ROLES_OF_WORKER, openbao / "worker.key"),
    ):
        _copy([key], directory, user)
        _copy([volumes.passwords / role for role in roles], directory / "passwords", user)
    # The servers themselves own all that is below.
    for data, user in (
        (volumes.postgresql_data, users.postgresql),
        (volumes.temporal_data, users.temporal),
    ):
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(data, user, user)


def _forget_half_made_store(volumes: Volumes, openbao: Path) -> None:
    """Remove what a first start that did not end left: no later start accepts it."""
    store = openbao / "raft"
    if store.exists() and not volumes.openbao_is_set_up.exists():
        shutil.rmtree(store)


def _copy(files: list[Path], directory: Path, user: int) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in files:
        copy = directory / file.name
        content = file.read_text()
        if not copy.exists() or copy.read_text() != content:
            write_atomically(copy, content)
    _give(directory, user)


def _give(directory: Path, user: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user, user)
