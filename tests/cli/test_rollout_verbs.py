"""What is asked of a rollout goes to its verb."""

from collections.abc import Callable
from typing import Any

import pytest

from cli.commands.rollouts.verbs import (
    cancel_rollout,
    pause_rollout,
    resume_rollout,
    roll_back_rollout,
)
from tests.cli.recorded import Recorded

ROLLOUT = f"roll_{'0' * 32}"


@pytest.mark.parametrize(
    ("command", "verb", "options"),
    [
        (pause_rollout, "pause", {}),
        (resume_rollout, "resume", {}),
        (cancel_rollout, "cancel", {"yes": True}),
        (roll_back_rollout, "rollback", {"yes": True, "no_wait": True}),
    ],
)
def test_a_verb_of_a_rollout_is_the_one_that_is_sent(
    command: Callable[..., None], verb: str, options: dict[str, Any]
) -> None:
    rollout: dict[str, Any] = {
        "id": ROLLOUT,
        "state": "running",
        "counts": {},
        "product_id": "prod_1",
    }
    rollout["package_version_id"] = "pkgv_1"
    api = Recorded(
        {f"GET /rollouts/{ROLLOUT}": rollout, f"POST /rollouts/{ROLLOUT}:{verb}": rollout}
    )
    command(api.session(), ROLLOUT, **options)
    assert [one.url.path for one in api.sent if one.method == "POST"] == [
        f"/v1/rollouts/{ROLLOUT}:{verb}"
    ]
