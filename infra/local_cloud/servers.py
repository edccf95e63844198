"""One server that really boots: its disk, its power switch and its network cable."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from domain.errors import BulkheadError, Reason
from infra.local_cloud import cgroups, disk, firewall, power
from infra.local_cloud.commands import execute, succeeds
from infra.local_cloud.firewall import FirewallCounters
from infra.local_cloud.image import Image
from infra.local_cloud.network import PrivateNetwork

INTERFACE = "eth0"
_BOOT_SECONDS = 60.0
_STOP_SECONDS = 60.0
_RUN_SECONDS = 60.0
_DEATH_SECONDS = 10.0
_POLL_SECONDS = 0.02
# Asking costs the booting server processor time.
_BOOT_POLL_SECONDS = 0.1
_LINES_SHOWN = 15
# What systemd does on this signal is a clean power-off; see systemd(1).
_POWER_OFF = signal.SIGRTMIN + 4
_CLOCK_FILE = "etc/systemd/system.conf.d/90-clock.conf"
_FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command in a server gave."""

    status: int
    output: str
    errors: str


@dataclass(slots=True)
class _Record:
    """What is known of a server while it is off."""

    name: str
    key: str
    network: str
    address: str
    layers: list[str]
    dropped: int = 0
    accepted: int = 0


class LocalServer:
    """A server in its own directory, which is all that there is of it while it is off.

    Get one from `LocalCloud.create` or `LocalCloud.server`; several objects, also in several
    processes, may stand for the same server.
    """

    def __init__(self, directory: Path, network: PrivateNetwork) -> None:
        self.directory = directory
        self.network = network
        record = self._load()
        self.name = record.name
        self.key = record.key
        self.address = IPv4Address(record.address)

    @classmethod
    def install(
        cls,
        directory: Path,
        network: PrivateNetwork,
        *,
        name: str,
        key: str,
        address: IPv4Address,
        image: Image,
        user_data: str,
    ) -> Self:
        """Lay out the disk of a new server in a directory that does not exist yet.

        Args:
            directory: all of it lies here.
            network: the one that it is attached to.
            name: its host name.
            key: what its namespace, groups and interface are called on the host.
            address: its own in the network.
            image: what its disk has at first.
            user_data: what cloud-init gets; it is on the disk, for root only.
        """
        making = directory.with_name(f".{directory.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        for part in ("disk", "work", "root", "containerd"):
            (making / part).mkdir(mode=0o755, parents=True)
        disk.write(making / "disk/etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
        seed = making / "disk/var/lib/cloud/seed/nocloud"
        disk.write(seed / "user-data", user_data, 0o600)
        disk.write(seed / "meta-data", f"instance-id: {key}\nlocal-hostname: {name}\n", 0o644)
        layers = [os.fspath(layer) for layer in image.layers]
        record = _Record(name, key, network.id, str(address), layers)
        disk.write(making / "server.json", json.dumps(asdict(record)), 0o644)
        making.rename(directory)
        return cls(directory, network)

    @property
    def console(self) -> Path:
        """What it wrote to its console, all boots after each other."""
        return self.directory / "console.log"

    @property
    def is_running(self) -> bool:
        """Whether anything of it runs."""
        return bool(cgroups.processes(self.key))

    @property
    def namespace(self) -> Path:
        """The network namespace of its last boot."""
        return power.NAMESPACES / self.key

    def boot(self) -> None:
        """Switch it on; returns when its first process runs. Does nothing if it is on.

        The firewall is there before the network is.

        Raises:
            BulkheadError: INTERNAL, when it did not start; the message has the console's last
                lines.
        """
        with self._switching():
            if not self.is_running:
                self._start()

    def _start(self) -> None:
        self._unplug()
        self.network.up()
        self._plug()
        disk.write(self.directory / "disk/etc/resolv.conf", disk.nameservers(), 0o644)
        groups = [group / "cgroup.procs" for group in cgroups.make(self.key)]
        join = "".join(f"echo $$ > {shlex.quote(os.fspath(group))}\n" for group in groups)
        script = f"{join}exec unshare --mount -- sh -ec {shlex.quote(self._carrier())}"
        # Its parent is gone at once: the server outlives whoever switched it on.
        detached = ["setsid", "--fork", "sh", "-ec", script]
        with self.console.open("ab") as console:
            subprocess.run(
                detached,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd="/",
            )
        self._await_first_process()

    def wait_until_booted(self, timeout: float = _BOOT_SECONDS) -> None:
        """Wait for multi-user.target.

        Raises:
            BulkheadError: DEADLINE_EXCEEDED, with the console's last lines.
        """
        deadline = time.monotonic() + timeout
        while not self._is_active("multi-user.target"):
            if time.monotonic() > deadline:
                raise BulkheadError(
                    Reason.DEADLINE_EXCEEDED,
                    f"{self.name} did not boot within {timeout:.0f} s; its console ended"
                    f" with:\n{self._console_end()}",
                )
            time.sleep(_BOOT_POLL_SECONDS)

    def stop(self, timeout: float = _STOP_SECONDS) -> None:
        """Shut it down as `poweroff` does, with the power cut if that takes too long.

        Args:
            timeout: seconds that its services have to end.
        """
        first = power.first_process(self.key)
        if first is not None:
            with suppress(ProcessLookupError):
                os.kill(first, _POWER_OFF)
            deadline = time.monotonic() + timeout
            while self.is_running and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        self.power_cut()

    def power_cut(self) -> None:
        """End all of it at once, at whatever it is doing; the disk stays as it is.

        Nothing is synced, but what its programs wrote before is in the host's page cache and is
        not lost: an unsynced file system after a cut is not emulated.
        """
        with self._switching():
            self._end()

    def _end(self) -> None:
        power.end_processes(self.key)
        self._unplug()

    def remove(self) -> None:
        """Cut its power and throw its disk away; nothing of it is left."""
        self.power_cut()
        removed = self.directory.with_name(f".{self.directory.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.directory.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def run(self, command: str, timeout: float = _RUN_SECONDS, *, text: str = "") -> CommandResult:
        """Run a shell command as root in the booted server, as at its console.

        Args:
            command: for `sh -c`; it is visible in the server's list of processes.
            timeout: seconds after which it is ended there.
            text: its standard input, which no list of processes shows.

        Raises:
            BulkheadError: FAILED_PRECONDITION, when the server is off; DEADLINE_EXCEEDED.
        """
        limit = f"--property=RuntimeMaxSec={timeout:.3f}"
        # Without a description of its own, the journal would tell the command.
        unit = ("--quiet", "--pipe", "--wait", "--collect", "--description=A command of run")
        try:
            answer = subprocess.run(
                [*self._entered(), "systemd-run", *unit, limit, "/bin/sh", "-c", command],
                check=False,
                capture_output=True,
                input=text,
                text=True,
                errors="replace",
                timeout=timeout + _DEATH_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise BulkheadError(
                Reason.DEADLINE_EXCEEDED,
                f"A command in {self.name} did not end within {timeout:.0f} s.",
            ) from error
        return CommandResult(answer.returncode, answer.stdout, answer.stderr)

    def cut_network(self) -> None:
        """Make the network swallow everything until `restore_network` or the next boot."""
        execute("ip", "link", "set", self.key, "nomaster")

    def restore_network(self) -> None:
        """Undo `cut_network`."""
        execute("ip", "link", "set", self.key, "master", self.network.bridge)

    def firewall_counters(self) -> FirewallCounters:
        """Return what came from outside the private network in all of its boots so far."""
        record = self._load()
        total = FirewallCounters(record.dropped, record.accepted)
        return total + firewall.read(self.namespace) if self.namespace.exists() else total

    def set_clock_offset(self, seconds: float) -> None:
        """Let its services and `run` believe that it is so much later (or earlier, if negative).

        All servers share the host's real-time clock; no namespace has one of its own. So it is
        libfaketime that lies, to dynamically linked programs which systemd starts from now on:
        sh, date, curl, openssl, Python. Go programs (kubelet, containerd) see the true time, and
        so does systemd itself. An offset of 0 ends it.
        """
        layered = next(Path(self._load().layers[-1]).glob(_FAKETIME.lstrip("/")))
        library = "/" / layered.relative_to(self._load().layers[-1])
        values = f'"LD_PRELOAD={library}" "FAKETIME={seconds:+.0f}"'
        values += ' "FAKETIME_DONT_FAKE_MONOTONIC=1"'
        content = f"[Manager]\nDefaultEnvironment={values if seconds else ''}\n"
        if self.is_running:
            write = f"mkdir -p /{Path(_CLOCK_FILE).parent}; printf %s {shlex.quote(content)}"
            self.run(f"{write} > /{_CLOCK_FILE}; systemctl daemon-reload")
        else:
            disk.write(self.directory / "disk" / _CLOCK_FILE, content, 0o644)

    @contextmanager
    def _switching(self) -> Iterator[None]:
        """Be the only one at the power switch, of all threads and processes."""
        try:
            held = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            # Removed: nothing can be booted any more, and ending needs no order.
            yield
            return
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def _carrier(self) -> str:
        """Return the script that becomes the server: its mounts end with its processes."""
        place = self.directory
        layers = ":".join(self._load().layers)
        disks = f"lowerdir={layers},upperdir={place}/disk,workdir={place}/work"
        bind = ["--bind-ro=/lib/modules"] if Path("/lib/modules").is_dir() else []
        nspawn = [
            *("systemd-nspawn", f"--directory={place}/root", f"--machine={self.key}"),
            *(f"--hostname={self.name}", f"--network-namespace-path={self.namespace}"),
            *("--register=no", "--keep-unit", "--capability=all", "--system-call-filter=@known"),
            # An overlay cannot lie on an overlay, and containerd makes them.
            *(f"--bind={place}/containerd:/var/lib/containerd", "--resolv-conf=off", *bind),
            *("--console=read-only", "--boot"),
        ]
        return "\n".join(
            [
                shlex.join(["mount", "-t", "overlay", "-o", disks, "overlay", f"{place}/root"]),
                # systemd-nspawn keeps a lock and a socket of each machine there and may leave them.
                "mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn",
                f"exec {shlex.join(nspawn)}",
            ]
        )

    def _plug(self) -> None:
        """Make the network namespace: firewall first, then address, then the link goes up."""
        namespace = f"--net={self.namespace}"
        execute("ip", "netns", "add", self.key)
        peer = ("peer", "name", INTERFACE, "netns", self.key)
        execute("ip", "link", "add", self.key, "type", "veth", *peer)
        firewall.install(self.namespace, INTERFACE, self.network.gateway_mac)
        address = f"{self.address}/{self.network.subnet.prefixlen}"
        settings = "net.ipv4.ip_forward=1 net.ipv6.conf.eth0.disable_ipv6=1"
        script = f"""\
sysctl --quiet --write {settings}
ip address add {address} dev {INTERFACE}
ip link set lo up
ip link set {INTERFACE} up
ip route add default via {self.network.gateway}
"""
        execute("nsenter", namespace, "sh", "-ec", script)
        execute("ip", "link", "set", self.key, "master", self.network.bridge, "up")

    def _unplug(self) -> None:
        """Remove the network namespace, after its counters were kept."""
        if not self.namespace.exists():
            return
        with suppress(BulkheadError):
            total = self.firewall_counters()
            record = self._load()
            record.dropped, record.accepted = total.dropped, total.accepted
            disk.write(self.directory / "server.json", json.dumps(asdict(record)), 0o644)
        power.remove_network(self.key)

    def _await_first_process(self) -> None:
        deadline = time.monotonic() + _DEATH_SECONDS
        while power.first_process(self.key) is None:
            if time.monotonic() > deadline:
                self._end()
                raise BulkheadError(
                    Reason.INTERNAL,
                    f"{self.name} did not start; its console ended with:\n{self._console_end()}",
                )
            time.sleep(_POLL_SECONDS)

    def _entered(self) -> list[str]:
        first = power.first_process(self.key)
        if first is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION, f"{self.name} is switched off; boot it first."
            )
        environment = ("env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        return ["nsenter", f"--target={first}", "--all", "--", *environment]

    def _is_active(self, unit: str) -> bool:
        with suppress(BulkheadError):
            return succeeds(*self._entered(), "systemctl", "--quiet", "is-active", unit)
        return False

    def _console_end(self) -> str:
        with suppress(OSError):
            lines = self.console.read_text(errors="replace").splitlines()
            return "\n".join(lines[-_LINES_SHOWN:])
        return "(nothing)"

    def _load(self) -> _Record:
        try:
            return _Record(**json.loads((self.directory / "server.json").read_text()))
        except FileNotFoundError as error:
            raise BulkheadError(
                Reason.NOT_FOUND, f"There is no server in {self.directory}."
            ) from error
