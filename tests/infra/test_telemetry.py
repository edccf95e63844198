"""What the processes log of a failure: where it was, and nothing that somebody has sent."""

import json
import subprocess
import sys

_CANARY = "canary-5fd1c0"

# In a process of its own: logging is set up once for all of it.
_PROGRAM = f"""
import logging
from infra.telemetry import configure_logging
import structlog
from domain.errors import BulkheadError, Reason

configure_logging("INFO")

def parse():
    text = "{_CANARY}"
    int(text)

try:
    try:
        parse()
    except ValueError as error:
        error.add_note("{_CANARY}")
        raise ExceptionGroup("{_CANARY}", [error, KeyError("{_CANARY}")]) from error
except ExceptionGroup:
    structlog.get_logger().exception("ours")
    logging.getLogger("a.library").exception("theirs")
try:
    raise BulkheadError(Reason.INTERNAL, "A sentence of ours.")
except BulkheadError:
    structlog.get_logger().exception("typed")
"""


def test_a_failure_is_logged_by_its_kind_and_places_without_what_it_quotes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["ours", "theirs", "typed"]
    assert _CANARY not in done.stderr
    for line in lines[:2]:
        group = line["exception"][0]
        assert group["exc_type"] == "ExceptionGroup"
        inner = group["exceptions"][0][0]
        assert inner["exc_type"] == "ValueError"
        assert inner["frames"][-1]["name"] == "parse"
    assert lines[2]["exception"][0]["exc_value"] == "A sentence of ours."
