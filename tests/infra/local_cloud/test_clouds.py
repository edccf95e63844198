"""The command that serves the three clouds' APIs."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from domain.cloud import Provider


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.mark.full
def test_the_command_serves_all_clouds_until_it_is_told_to_end(tmp_path: Path) -> None:
    ports = dict(zip(Provider, _free_ports(len(Provider)), strict=True))
    command = [
        *(sys.executable, "-m", "infra.local_cloud", "--directory", str(tmp_path)),
        *("clouds", "--no-boots", *(f"--{name}-port={port}" for name, port in ports.items())),
    ]
    with subprocess.Popen(command) as process:
        try:
            told = tmp_path / "clouds.json"
            deadline = time.monotonic() + 120
            while not told.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            urls = json.loads(told.read_text())
            assert urls == {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
            for url in urls.values():
                assert requests.get(f"{url}/_faults", timeout=10).json() == []
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
