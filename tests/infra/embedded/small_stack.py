"""A stack of PostgreSQL and OpenBao alone, with a record and a secret in it."""

import subprocess
import sys

from domain.identifiers import Prefix, new_id
from domain.secret import SecretValue, VersionPlace
from infra.embedded.home import Home
from infra.embedded.openbao import OpenBao as OpenBaoServer
from infra.embedded.owner import ensure_owner
from infra.embedded.server import Part
from infra.embedded.stack import Stack
from infra.openbao.client import OpenBao
from infra.settings import EmbeddedSettings
from infra.supervisor.configuration import source_root

PARTS = frozenset({Part.POSTGRESQL, Part.OPENBAO})


class SmallStack:
    def __init__(self, home: Home) -> None:
        self.stack = Stack(home, EmbeddedSettings.model_construct(), durable=False)

    @property
    def home(self) -> Home:
        return self.stack.home

    @property
    def openbao(self) -> OpenBaoServer:
        return OpenBaoServer(self.home, self.stack.ports)

    def up(self) -> None:
        self.stack.up(PARTS)

    def make_workspace(self) -> str:
        """Return the first owner's workspace, with a space for its secrets."""
        with self.stack.administrator("bulkhead") as connection:
            ensure_owner(self.home, self.stack.database, connection, "http://127.0.0.1:1")
        workspace_id = str(self.one("SELECT id FROM workspaces"))
        client = OpenBao(self.stack.openbao("worker"))
        client.ensure_secret_space(workspace_id)
        client.close()
        return workspace_id

    def one(self, query: str, *values: object) -> object:
        """Return the first column of the only row."""
        with self.stack.administrator("bulkhead") as connection:
            row = connection.execute(query.encode(), values).fetchone()
        assert row is not None
        found: object = row[0]
        return found

    def write(self, workspace_id: str, data: bytes) -> VersionPlace:
        """Store a value as the worker."""
        place = VersionPlace(
            workspace_id=workspace_id,
            secret_id=new_id(Prefix.SECRET),
            version_id=new_id(Prefix.SECRET_VERSION),
        )
        client = OpenBao(self.stack.openbao("worker"))
        client.values.write(place, SecretValue(data))
        client.close()
        return place

    def read(self, place: VersionPlace) -> bytes:
        """Read a value as the worker."""
        client = OpenBao(self.stack.openbao("worker"))
        try:
            return client.values.read(place, new_id(Prefix.AUDIT_EVENT)).data
        finally:
            client.close()

    def run_and_die(self, point: int, *command: str) -> int:
        """Run `tests.infra.embedded.dying` and return how it ended."""
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.infra.embedded.dying",
                str(self.home.directory),
                str(point),
                *command,
            ],
            check=False,
            cwd=source_root(),
            stdin=subprocess.DEVNULL,
        )
        return result.returncode

    def keys(self) -> dict[str, bytes]:
        """Return the seal keys that are there."""
        return {file.name: file.read_bytes() for file in self.home.openbao.glob("seal*.key")}
