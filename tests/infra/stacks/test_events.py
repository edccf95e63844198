"""What is told of the engine's events."""

from collections.abc import Mapping
from typing import Any

import pytest

from infra.stacks.events import value_at

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
