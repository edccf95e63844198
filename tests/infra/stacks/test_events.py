"""What is told of the engine's events."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation.events import EngineEvent

from infra.clouds.profile import EngineCalls
from infra.stacks.events import EngineLog, value_at

# A poll a day: none of a test's steps takes so long that it is two.
ASKS = EngineCalls(start=100, change=10, look=3, poll_seconds=86400.0)

RULE = {"from_port": 22, "cidr_blocks": ["10.0.0.0/8", "0.0.0.0/0"]}
PROPERTIES = {"name": "bh", "labels": {"team": "a", "a.b": "c"}, "ingress": [RULE]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "bh"),
        ("labels.team", "a"),
        ('labels["a.b"]', "c"),
        ("ingress[0].cidr_blocks[1]", "0.0.0.0/0"),
        ("ingress[1].from_port", None),
        ("labels.team.more", None),
        ("gone", None),
    ],
)
def test_a_nested_property_has_its_values(path: str, value: object) -> None:
    properties: Mapping[str, Any] = PROPERTIES
    assert value_at(path, properties) == value
    assert value_at(path, None) is None


@pytest.fixture
def log(tmp_path: Path) -> EngineLog:
    return EngineLog(tmp_path / "events.jsonl", ASKS)


def step(
    kind: str, op: str, name: str = "server", *, of: str = "hcloud:index/server:Server"
) -> EngineEvent:
    """Return an event about one resource."""
    urn = f"urn:pulumi:a::b::{of}::{name}"
    return EngineEvent.from_json(
        {"sequence": 1, "timestamp": 1, kind: {"metadata": {"op": op, "urn": urn, "type": of}}}
    )


def told_calls(log: EngineLog) -> int:
    """Return what the last line says."""
    return int(json.loads(log.file.read_text().splitlines()[-1])["calls"])


def test_calls_are_counted_when_a_step_begins_and_polls_when_it_ends(log: EngineLog) -> None:
    log(step("resourcePreEvent", "create"))
    assert told_calls(log) == 100 + 10
    log(step("resOutputsEvent", "create"))
    assert told_calls(log) == 100 + 10 + 1
    log(step("resourcePreEvent", "delete", "network"))
    assert told_calls(log) == 100 + 10 + 1 + 10


def test_polls_of_a_step_that_failed_count_too(log: EngineLog) -> None:
    log(step("resourcePreEvent", "create"))
    log(step("resOpFailedEvent", "create"))
    assert told_calls(log) == 100 + 10 + 1
    assert json.loads(log.file.read_text().splitlines()[-1])["message"] == "server: failed."


def test_what_stays_as_it_is_and_what_is_only_a_word_asks_nothing(log: EngineLog) -> None:
    for op in ("same", "replace", "discard"):
        log(step("resourcePreEvent", op))
        log(step("resOutputsEvent", op))
    log(step("resourcePreEvent", "create", of="pulumi:providers:hcloud"))
    assert log.calls == 0


def test_who_only_looks_asks_less_whatever_the_engine_would_do(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "events.jsonl", ASKS, only_looks=True)
    log(step("resourcePreEvent", "delete"))
    log(step("resOutputsEvent", "delete"))
    assert log.calls == 100 + 3
