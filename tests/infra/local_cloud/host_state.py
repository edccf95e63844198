"""What a host has of a cloud's servers and networks: nothing, when nothing was left."""

import json
import subprocess
from pathlib import Path


def host_state(*marks: str) -> dict[str, list[str]]:
    """List namespaces, mounts, control groups, interfaces, rules and processes with a mark."""
    processes = [_bytes(file) for file in Path("/proc").glob("[0-9]*/cmdline")]
    found = {
        "namespaces": [path.name for path in Path("/run/netns").glob("*")],
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "groups": [str(path) for path in Path("/sys/fs/cgroup").glob("*/bh*")],
        "interfaces": [
            link["ifname"] for link in json.loads(_output("ip", "-json", "link", "show"))
        ],
        "rules": _output("iptables-save").splitlines(),
        "processes": [line.replace(b"\0", b" ").decode(errors="replace") for line in processes],
        "files": [str(path) for path in Path("/run").glob("bulkhead*/*")],
    }
    marked = {
        kind: [line for line in lines if any(mark in line for mark in marks)]
        for kind, lines in found.items()
    }
    return {kind: lines for kind, lines in marked.items() if lines}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
