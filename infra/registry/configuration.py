"""What the registry reads, and where."""

import json
from dataclasses import dataclass
from pathlib import Path

from infra.supervisor.files import write_atomically


@dataclass(frozen=True, slots=True)
class RegistryFiles:
    """The files of one registry, all under one directory."""

    directory: Path

    @property
    def storage(self) -> Path:
        """What it serves."""
        return self.directory / "storage"

    @property
    def configuration(self) -> Path:
        """Its configuration."""
        return self.directory / "config.json"

    @property
    def certificate(self) -> Path:
        """Its key and its certificate, in one file, so that the two always fit."""
        return self.directory / "tls.pem"


def write_configuration(files: RegistryFiles, address: str) -> None:
    """Write what the registry reads at its start.

    Args:
        files: its files.
        address: where it listens, `host:port`.
    """
    configuration = {
        "version": 0.1,
        "log": {"level": "warn", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(files.storage)},
            "maintenance": {
                "readonly": {"enabled": True},
                "uploadpurging": {"enabled": False},
            },
        },
        "http": {
            "addr": address,
            # Of uploads, which there are none of; without one it warns at each start.
            "secret": "unused",
            "tls": {
                "certificate": str(files.certificate),
                "key": str(files.certificate),
                "minimumtls": "tls1.2",
            },
            "headers": {"X-Content-Type-Options": ["nosniff"]},
        },
    }
    # JSON is YAML.
    write_atomically(files.configuration, json.dumps(configuration, indent=2) + "\n")
