"""The files of one supervisord, and how they are written."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from domain.errors import BulkheadError, Reason

# Linux holds a unix socket's path in 108 bytes with its final zero; supervisord binds
# `<path>.<pid>` first and links it afterwards.
_SOCKET_PATH_BYTES = 107 - len(".4194304")

_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class SupervisorFiles:
    """Where each file is, all under one directory that only its owner may enter."""

    directory: Path

    def __post_init__(self) -> None:
        """Refuse a directory whose socket's address the kernel could not hold."""
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The path {self.directory} is too long for a unix socket "
                f"({_SOCKET_PATH_BYTES} bytes with the socket's name). Use a shorter directory.",
            )

    @property
    def configuration(self) -> Path:
        """The main configuration file."""
        return self.directory / "supervisord.conf"

    @property
    def groups(self) -> Path:
        """The directory of one configuration file a group."""
        return self.directory / "conf.d"

    @property
    def logs(self) -> Path:
        """The directory of the programs' output."""
        return self.directory / "logs"

    @property
    def socket(self) -> Path:
        """The unix socket that supervisord answers on."""
        return self.directory / "supervisor.sock"

    @property
    def pid(self) -> Path:
        """The file with supervisord's process id."""
        return self.directory / "supervisord.pid"

    @property
    def log(self) -> Path:
        """Supervisord's own log."""
        return self.directory / "supervisord.log"

    @property
    def start_output(self) -> Path:
        """What supervisord wrote before it had a log."""
        return self.directory / "supervisord.start"

    @property
    def lock(self) -> Path:
        """Locked for as long as a supervisord of this directory lives."""
        return self.directory / "supervisord.lock"

    @property
    def stopped(self) -> Path:
        """Exists while supervisord shall not run; the keeper looks for it."""
        return self.directory / "stopped"

    def group(self, name: str) -> Path:
        """Return the configuration file of a group."""
        if _GROUP_NAME.fullmatch(name) is None:
            message = f"not the name of a group: {name!r}"
            raise ValueError(message)
        return self.groups / f"{name}.conf"

    def program_log(self, group: str, program: str) -> Path:
        """Return the file that holds a program's output."""
        return self.logs / f"{group}.{program}.log"

    def make(self) -> None:
        """Make the directories that supervisord needs to find."""
        for directory in (self.directory, self.groups, self.logs):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, on disk when this returns; 0600.

    The temporary file has a name that no `*.conf` pattern matches, in the same directory.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
