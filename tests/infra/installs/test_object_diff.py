"""Differences of objects as they are shown and stored."""

from typing import Any

from infra.installs.object_diff import differences


def _config(data: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def test_what_postgresql_does_not_take_is_replaced_in_texts_wherever_they_are() -> None:
    live = _config({"a": "was\0live", "b": {"c": ["\ud800"]}})
    assert differences(live, _config({"a": "wanted"})) == (
        {"path": "data.a", "before": "was\ufffdlive", "after": "wanted"},
        {"path": "data.b", "before": {"c": ["\ufffd"]}, "after": None},
    )
