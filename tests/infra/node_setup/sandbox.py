"""A root directory in which the script may do what it does: nothing of it reaches this machine.

A mount namespace for each run, over directories that stay, so that a run can go on where the last
one was cut off. There is no systemd; what is asked of it is written down.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.node_setup import SCRIPT

_TOOLS = (
    *(
        "awk",
        "base64",
        "cat",
        "chmod",
        "cmp",
        "cp",
        "curl",
        "cut",
        "date",
        "df",
        "env",
        "find",
        "flock",
    ),
    *("getent", "grep", "head", "id", "ip", "iptables", "mkdir", "mktemp", "mount"),
    *("mv", "openssl", "paste", "rm", "rmdir", "sed", "sha256sum", "sleep", "sort", "ss", "stat"),
    *("sync", "tail", "tr", "uname", "wc"),
)
# No other port of this machine is in the way of a test.
_SS = "#!/bin/sh\nexit 0\n"
_SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>/run/systemctl.log
case "$*" in
is-active*) exit 3 ;;
"start bulkhead-flannel")
    mkdir -p /run/flannel
    printf 'FLANNEL_SUBNET=10.244.3.1/24\\nFLANNEL_MTU=1450\\n' >/run/flannel/subnet.env
    ;;
esac
"""
# A server without a module that its kernel has, and a program that loads that.
NO_VXLAN = "rmdir /sys/module/vxlan"
MODPROBE = """\
#!/bin/sh
echo "$*" >>/run/modprobe.log
case "$*" in *--dry-run*|*--remove*) exit 0 ;; esac
mkdir "/sys/module/$2"
"""
_UNSHARE = ("unshare", "--mount", "--propagation=private")
_WORLD = """\
set -eu
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/work" /etc
for place in run opt usr/local/sbin var/lib var/log; do mount --bind "$0/$place" "/$place"; done
mkdir -p /run/systemd/system
mount --bind "$0/swaps" /proc/swaps
# It is there, whether or not this machine has needed it yet.
mount -t tmpfs tmpfs /sys/module && mkdir /sys/module/vxlan
for setting in net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables; do
    [ ! -e /proc/sys/$setting ] || mount --bind "$0/setting" /proc/sys/$setting
done
export PATH="$0/bin"
eval "$BEFORE"
unset BEFORE
exec "$@"
"""


@dataclass(frozen=True)
class Run:
    """What a run of the script gave."""

    status: int
    output: str


class Sandbox:
    """One server as far as its files go."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        for place in ("etc", "work", "run", "opt", "usr/local/sbin", "var/lib", "var/log", "bin"):
            (self.root / place).mkdir(parents=True)
        (self.root / "swaps").write_text("Filename Type Size Used Priority\n")
        (self.root / "setting").write_text("0\n")
        for tool in _TOOLS:
            self.replace(tool, None)
        self.replace("sh", None)
        self.replace("ss", _SS)
        self.replace("modprobe", "#!/bin/sh\nexit 1\n")
        self.replace("systemctl", _SYSTEMCTL)
        # No program runs here, the tunnel's agent neither; it says that it is connected.
        self.replace_around("curl", 'case "$*" in *:8134/readyz) exit 0 ;; esac')

    def replace(self, tool: str, program: str | None) -> None:
        """Put a program in a tool's place; None: the machine's own."""
        place = self.root / "bin" / tool
        place.unlink(missing_ok=True)
        if program is None:
            found = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
            assert found is not None, tool
            place.symlink_to(found)
        else:
            place.write_text(program)
            place.chmod(0o755)

    def replace_around(self, tool: str, lines: str) -> None:
        """Run shell lines before each call of a tool."""
        place = self.root / "bin" / tool
        real = os.path.realpath(place)
        if not place.is_symlink():
            real = f"{real}.around{len(list(place.parent.iterdir()))}"
            place.rename(real)
        self.replace(tool, f'#!/bin/sh\n{lines}\nexec {real} "$@"\n')

    def run(
        self,
        *arguments: str,
        token: str = "",
        before: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """Run the script.

        Args:
            arguments: its own.
            token: for its standard input.
            before: shell lines that prepare the server, as root in its namespace.
            environment: more variables.
        """
        return self.execute(["sh", os.fspath(SCRIPT), *arguments], token, before, environment)

    def execute(
        self,
        command: Sequence[str],
        token: str = "",
        before: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """Run any command there."""
        done = subprocess.run(
            [*_UNSHARE, "sh", "-c", _WORLD, os.fspath(self.root), *command],
            check=False,
            input=token,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            env={"PATH": os.environ["PATH"], "BEFORE": before, **(environment or {})},
            # What cuts the power ends the whole group.
            start_new_session=True,
        )
        return Run(done.returncode, done.stdout)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def exists(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def files(self) -> set[str]:
        """Return all that is there of what was not there at first, but for logs of this class."""
        found = {
            os.fspath(path.relative_to(self.root))
            for place in ("etc", "opt", "usr", "var")
            for path in (self.root / place).rglob("*")
        }
        return found - {"usr/local", "usr/local/sbin", "var/lib", "var/log"}
