"""The audit logs stay bounded, and lose no line while they are ended."""

import json
import threading
import time
from pathlib import Path

import httpx

from infra.openbao.audit_logs import logs_of, reopen, rotate
from infra.openbao.policies import API
from tests.infra.openbao.own_server import own_server
from tests.servers import Servers

LAST_PORTS = 8 * 97
REQUESTS = 400


def test_the_newest_logs_stay_and_the_one_that_is_written_is_never_removed(tmp_path: Path) -> None:
    device = tmp_path / "audit-1"
    device.mkdir()
    for number in range(5):
        (device / "audit.log").write_text(str(number) * 100)
        assert rotate(tmp_path, maximum_bytes=100, kept=3)
    (device / "audit.log").write_text("small")
    assert not rotate(tmp_path, maximum_bytes=100, kept=3)
    assert [log.read_text()[:1] for log in logs_of(device)] == ["2", "3", "4", "s"]


def test_every_request_is_in_exactly_one_log_of_each_device(
    servers: Servers, tmp_path: Path
) -> None:
    port = servers.control_planes.first_port + LAST_PORTS
    with own_server(tmp_path / "openbao", port) as server:
        server.start()
        url = f"{server.settings(API).address}/v1/pki/platform/ca/pem"

        def ask() -> None:
            with httpx.Client(trust_env=False) as client:
                for number in range(REQUESTS):
                    headers = {"X-Bulkhead-Audit-Id": f"aud_{number:04}"}
                    client.get(url, headers=headers).raise_for_status()

        asking = threading.Thread(target=ask)
        asking.start()
        while asking.is_alive():
            if rotate(server.directory, maximum_bytes=40_000, kept=1000):
                reopen(server.directory)
            time.sleep(0.02)
        asking.join()
        for name in ("audit-1", "audit-2"):
            logs = logs_of(server.directory / name)
            assert len(logs) > 3
            assert {log.stat().st_mode & 0o777 for log in logs} == {0o600}
            lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
            ids = [
                line["request"]["headers"]["x-bulkhead-audit-id"]
                for line in lines
                if line["type"] == "response" and "headers" in line["request"]
            ]
            assert ids == [[f"aud_{number:04}"] for number in range(REQUESTS)]


def test_a_number_that_is_another_programs_by_now_gets_no_signal(tmp_path: Path) -> None:
    # A hang-up would end us.
    (tmp_path / "server.pid").write_text("self")
    reopen(tmp_path)
    (tmp_path / "server.pid").write_text(Path("/proc/self/stat").read_text().split()[0])
    reopen(tmp_path)
    (tmp_path / "server.pid").unlink()
    reopen(tmp_path)
