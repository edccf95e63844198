"""The script that makes a server a node, and what a person or cloud-init runs to get it.

The token is never an argument of a program: in the command it goes through a pipe from the shell's
own `printf`, in cloud-init through a file for root alone. The script is taken over TLS from whoever
holds the certificate authority that the command names by its hash.
"""

import hashlib
import json
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).parent / "bulkhead-node.sh"

# Where cloud-init puts what it was given; the script removes both when it is done with them.
_TOKEN_FILE: Final = "/etc/bulkhead/token"  # noqa: S105 - the name of a file
_TIMER: Final = "/etc/systemd/system/timers.target.wants/bulkhead-node.timer"
_PER_BOOT_FILE: Final = "/var/lib/cloud/scripts/per-boot/bulkhead-node"

# Modules of cloud-init's last stage run seconds after the network is up; a service of its own
# starts with it. What it prints goes where cloud-init's own output is.
_LOG: Final = "append:/var/log/cloud-init-output.log"
_EARLY: Final = (
    *("systemd-run", "--no-block", "--collect", "--unit=bulkhead-bootstrap"),
    *("--property=Wants=network-online.target", "--property=After=network-online.target"),
    *(f"--property=StandardOutput={_LOG}", f"--property=StandardError={_LOG}"),
    *("sh", "-c", f"[ ! -e {_PER_BOOT_FILE} ] || exec sh {_PER_BOOT_FILE}"),
)

# A connection that is dropped on its way ends too.
_CURL: Final = "curl -qfsS --proto =https --tlsv1.2 --connect-timeout 10 --max-time 60"

# What the script cannot say, because it is not there yet, in the script's words and codes. Between
# the single quotes there is none.
_COMMAND: Final = """\
printf '%s\\n' '{token}' | sh -c '\
set -eu; umask 077; fail() {{ echo "bulkhead: $2" >&2; exit $1; }}; \
command -v curl >/dev/null || fail 13 "Missing: curl."; \
d=$(mktemp -d); trap "rm -rf $d" EXIT; \
get() {{ {curl} "$@" 2>"$d/why" || case $(head -n 1 "$d/why") in \
*expired*|*"not yet valid"*) fail 20 "The clock of this server is off: $(date)." ;; \
*) fail 31 "{url} cannot be reached: $(head -n 1 "$d/why")" ;; esac; }}; \
get -k -o "$d/ca" {url}/v1/nodes/authority; \
echo "{sha256}  $d/ca" | sha256sum -c --status || \
fail 19 "The certificate authority of {url} is not the one that was named."; \
get --cacert "$d/ca" -o "$d/node" {url}/v1/nodes/script; \
sh "$d/node" --url {url} --authority-sha256 {sha256}'\
"""

# Run at each boot until the script's own timer is there, so that no power cut stops a server. In
# its last stage cloud-init runs it too, and so ends when it has ended, and does it all where the
# service never began.
_PER_BOOT: Final = """\
#!/bin/sh
set -u
umask 077
exec 9>/run/bulkhead-bootstrap.lock
flock 9
cd /etc/bulkhead || exit 0
tries=0
until [ -e {timer} ] || [ ! -s {token_file} ]; do
    {curl} --cacert bootstrap-ca.crt -o bootstrap {url}/v1/nodes/script &&
        sh bootstrap --url {url} --authority-sha256 {sha256} --token-file {token_file} && break
    tries=$((tries + 1))
    [ "$tries" -lt 20 ] || exit 1
    sleep 15
done
rm -f bootstrap bootstrap-ca.crt "$0"
"""


def script() -> bytes:
    """Return the script as it is served."""
    return SCRIPT.read_bytes()


def script_sha256() -> str:
    """Return the SHA-256 of the script, in hexadecimal, for those who compare it by hand."""
    return hashlib.sha256(script()).hexdigest()


def bootstrap_command(url: str, authority_sha256: str, token: str) -> str:
    """Return the one line for a root shell of the server.

    Args:
        url: where servers reach the API, without a slash at the end.
        authority_sha256: of the root certificate's PEM file as it is served, in hexadecimal.
        token: of the worker bootstrap.
    """
    return _COMMAND.format(curl=_CURL, url=url, sha256=authority_sha256, token=token)


def bootstrap_cloud_init(url: str, authority: str, token: str) -> str:
    """Return the cloud-config for a server that joins when it boots for the first time.

    Args:
        url: where servers reach the API, without a slash at the end.
        authority: the root certificate's PEM file as it is served.
        token: of the worker bootstrap.
    """
    sha256 = hashlib.sha256(authority.encode()).hexdigest()
    per_boot = _PER_BOOT.format(
        curl=_CURL, url=url, sha256=sha256, token_file=_TOKEN_FILE, timer=_TIMER
    )
    files = [
        {"path": _TOKEN_FILE, "permissions": "0600", "content": f"{token}\n"},
        {"path": "/etc/bulkhead/bootstrap-ca.crt", "permissions": "0644", "content": authority},
        {"path": _PER_BOOT_FILE, "permissions": "0700", "content": per_boot},
    ]
    # JSON is YAML, and needs no rules of quoting of its own.
    document = {"bootcmd": [_EARLY], "write_files": files}
    return "#cloud-config\n" + json.dumps(document, indent=1) + "\n"
