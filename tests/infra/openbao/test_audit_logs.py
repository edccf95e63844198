"""The audit logs stay bounded, and lose no line while they are ended."""

import json
import threading
import time
from pathlib import Path

import httpx

from infra.openbao.audit_logs import logs_of, mark_compared, removals_of, reopen, rotate
from infra.openbao.policies import API
from tests.infra.openbao.own_server import own_server
from tests.servers import Servers

LAST_PORTS = 8 * 97
REQUESTS = 400


WORKSPACES = ("0" * 31 + "1", "0" * 31 + "2")


def line_of(workspace: str) -> str:
    """Return what is looked for in the line of an answer with a value."""
    namespace = f'"namespace":{{"id":"x","path":"ws-{workspace}/"}}'
    return f'{{"type":"response","request":{{{namespace},"path":"secrets/data/a/b"}}}}\n'


def end_logs(directory: Path, *texts: str, kept: int = 1, most: int = 1000) -> Path:
    """Let a device write a log with each text and end it; return its folder."""
    device = directory / "audit-1"
    device.mkdir(exist_ok=True)
    for text in texts:
        (device / "audit.log").write_text(text)
        assert rotate(directory, maximum_bytes=1, kept=kept, most=most)
    return device


def texts_of(device: Path) -> list[str]:
    return [log.read_text() for log in logs_of(device)]


def compare(*logs: Path) -> None:
    for log in logs:
        mark_compared(log, log.stat().st_size)


def test_the_newest_logs_stay_and_the_one_that_is_written_is_never_removed(tmp_path: Path) -> None:
    device = end_logs(tmp_path, *"01234")
    compare(*logs_of(device))
    (device / "audit.log").write_text("small")
    assert not rotate(tmp_path, maximum_bytes=100, kept=3)
    assert texts_of(device) == ["2", "3", "4", "small"]
    compare(*logs_of(device))
    assert not rotate(tmp_path, maximum_bytes=100, kept=1)
    assert texts_of(device) == ["4", "small"]
    assert [mark.stem for mark in device.glob("*.compared")] == [logs_of(device)[0].stem]


def test_a_log_stays_until_it_is_compared_to_its_end(tmp_path: Path) -> None:
    device = end_logs(tmp_path, *"0123")
    first, second, *_ = logs_of(device)
    compare(second)
    rotate(tmp_path, kept=1)
    assert texts_of(device) == ["0", "2", "3"]
    compare(first)
    with first.open("a") as log:
        log.write(" and what came late")
    rotate(tmp_path, kept=1)
    assert first.exists()
    compare(first)
    rotate(tmp_path, kept=1)
    assert texts_of(device) == ["2", "3"]


def test_when_nothing_is_compared_the_disk_has_a_bound_and_it_is_told_whose_reads_went(
    tmp_path: Path,
) -> None:
    texts = [line_of(WORKSPACES[0]) + line_of(WORKSPACES[1]), line_of(WORKSPACES[1]), "2", "3"]
    device = end_logs(tmp_path, *texts)
    first, second, *_ = logs_of(device)
    rotate(tmp_path, kept=1, most=4)
    assert texts_of(device) == texts
    rotate(tmp_path, kept=1, most=2)
    assert texts_of(device) == ["2", "3"]
    assert [(removal.log, removal.workspaces) for removal in removals_of(device)] == [
        (first.name, list(WORKSPACES)),
        (second.name, [WORKSPACES[1]]),
    ]


def test_what_is_compared_goes_before_what_is_not(tmp_path: Path) -> None:
    device = end_logs(tmp_path, *"0123")
    compare(logs_of(device)[1])
    rotate(tmp_path, kept=1, most=3)
    assert texts_of(device) == ["0", "2", "3"]
    assert list(removals_of(device)) == []


def test_a_disk_without_room_for_a_note_gets_room(tmp_path: Path) -> None:
    device = end_logs(tmp_path, *"01")
    # A note cannot be written where a folder is.
    logs_of(device)[0].with_suffix(".removed").mkdir()
    rotate(tmp_path, kept=1, most=1)
    assert texts_of(device) == ["1"]


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
