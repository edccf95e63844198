"""What is left in accounts, as a person is told of it."""

from typing import Any

import pytest

from cli.commands.leaks import list_leaks
from tests.cli.recorded import Recorded

TRIED, LEFT = "their removal is tried again", "is left to you"


def leak(attempts: int) -> dict[str, Any]:
    """Return an open finding after so many tries."""
    return {
        "id": f"leak_{attempts}",
        "state": "open",
        "provider": "hcloud",
        "kind": "server",
        "cloud_id": "7",
        "name": "bh-server",
        "place": "fsn1",
        "attempts": attempts,
        "last_error": None,
        "first_seen_at": 1_700_000_000,
    }


@pytest.mark.parametrize(
    ("found", "told"),
    [([leak(3)], {TRIED}), ([leak(0)], {LEFT}), ([leak(3), leak(0)], {TRIED, LEFT})],
    ids=["tried", "never tried", "both"],
)
def test_a_removal_is_promised_for_what_was_tried_alone(
    found: list[dict[str, Any]], told: set[str]
) -> None:
    api = Recorded({"GET /leaks": found, "GET /compute_configs": []})
    list_leaks(api.session())
    shown = " ".join(api.shown.split())
    assert {text for text in (TRIED, LEFT) if text in shown} == told
