"""Which service finds which secret in which volume, and as whom it runs.

The numbers are the `user` of each service in docker-compose.yml; a test compares them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Users:
    """The user ids of the services; a file is readable by exactly one of them."""

    setup: int = 0
    # The user of the official image.
    postgresql: int = 999
    api: int = 10001
    openbao: int = 10002
    temporal: int = 10003
    # Gives each control plane a user id of its own.
    worker: int = 0


@dataclass(frozen=True, slots=True)
class Volumes:
    """Where the volumes are mounted in the one-shot services."""

    root: Path = Path("/bulkhead")

    @property
    def setup(self) -> Path:
        """Seen by the one-shot services only: every password, and the first owner's token."""
        return self.root / "setup"

    @property
    def passwords(self) -> Path:
        """One file a database role."""
        return self.setup / "passwords"

    @property
    def administrator_password(self) -> Path:
        """Of the database server's administrator."""
        return self.setup / "administrator"

    @property
    def operator(self) -> Path:
        """The operator's login key, and what OpenBao's logins and policies are made of."""
        return self.setup / "openbao"

    @property
    def openbao_is_set_up(self) -> Path:
        """Exists once the first start of OpenBao has come to its end."""
        return self.setup / "openbao-is-set-up"

    @property
    def postgresql(self) -> Path:
        """What the database server reads."""
        return self.root / "postgresql"

    @property
    def api(self) -> Path:
        """What the API reads: its login key, and the password of its database role."""
        return self.root / "api"

    @property
    def worker(self) -> Path:
        """What the worker reads: its login key, and the passwords of its database roles."""
        return self.root / "worker"

    @property
    def postgresql_data(self) -> Path:
        """The database server's own volume."""
        return self.root / "data" / "postgresql"

    @property
    def temporal_data(self) -> Path:
        """The workflow engine's own volume."""
        return self.root / "data" / "temporal"


# Mounted at the same place in OpenBao's container: its configuration names files by their paths.
OPENBAO_DIRECTORY: Final = Path("/openbao/bulkhead")
OPENBAO_PORT: Final = 8200
