"""Which rollout a person means, and how lists call what it refers to."""

from typing import Any

import pytest

from cli.commands.rollouts.group import rollout_called
from cli.commands.rollouts.resources import list_rollouts, watch_rollout
from cli.commands.rollouts.verbs import pause_rollout
from cli.commands.stops import list_stops
from cli.errors import CliError, ExitCode
from domain.identifiers import Prefix, new_id
from tests.cli.recorded import Recorded

PRODUCT, VERSION = new_id(Prefix.PRODUCT), new_id(Prefix.PACKAGE_VERSION)
NEWEST, MIDDLE, OLDEST = (new_id(Prefix.ROLLOUT) for _ in range(3))


def _rollout(identifier: str, *, done: bool) -> dict[str, Any]:
    return {
        "id": identifier,
        "product_id": PRODUCT,
        "package_version_id": VERSION,
        "state": "succeeded" if done else "running",
        "done": done,
        "wave": 0,
        "counts": {},
        "strategy": {"canary": 1},
        "created_at": 0,
    }


def _api(going_on: set[str]) -> Recorded:
    rollouts = [_rollout(one, done=one not in going_on) for one in (NEWEST, MIDDLE, OLDEST)]
    return Recorded(
        {
            "GET /products": [{"id": PRODUCT, "name": "shop", "package": {"id": "pkg_1"}}],
            "GET /packages/pkg_1/versions": [{"id": VERSION, "semver": "1.5.0"}],
            "GET /rollouts": rollouts,
            **{f"GET /rollouts/{one['id']}": one for one in rollouts},
            **{f"GET /rollouts/{one['id']}/events": [] for one in rollouts},
        }
    )


def test_a_product_stands_for_its_rollout_that_goes_on() -> None:
    api = _api({MIDDLE})
    assert rollout_called(api.session(), "shop")["id"] == MIDDLE
    (listed,) = [one for one in api.sent if one.url.path == "/v1/rollouts"]
    assert listed.url.params["product_id"] == PRODUCT


def test_of_a_product_whose_rollouts_have_ended_the_newest_is_watched() -> None:
    api = _api(set())
    watch_rollout(api.session(as_json=True), "shop")
    assert NEWEST in api.out.getvalue()
    with pytest.raises(CliError, match="No rollout of shop goes on") as refused:
        pause_rollout(api.session(), "shop")
    assert refused.value.next_commands == ("bulkhead rollouts list --product shop",)


def test_a_product_with_several_rollouts_that_go_on_is_refused_with_their_ids() -> None:
    with pytest.raises(CliError, match=f"say which one: {NEWEST}, {OLDEST}") as refused:
        watch_rollout(_api({NEWEST, OLDEST}).session(), "shop")
    assert refused.value.exit_code is ExitCode.USAGE


def test_a_name_of_no_product_is_said_to_be_none() -> None:
    with pytest.raises(CliError, match="There is no product named 'shoop'"):
        watch_rollout(_api({NEWEST}).session(), "shoop")


def test_rollouts_are_listed_by_product_and_version() -> None:
    api = _api({NEWEST})
    list_rollouts(api.session())
    for line in api.out.getvalue().splitlines()[1:]:
        assert line.split()[:2] == ["shop", "1.5.0"]
    assert PRODUCT not in api.out.getvalue()
    as_json = _api({NEWEST})
    list_rollouts(as_json.session(as_json=True))
    assert [request.url.path for request in as_json.sent] == ["/v1/rollouts"]


def test_stops_are_listed_by_the_names_of_what_they_stop() -> None:
    def stop(scope: str, subject: str | None) -> dict[str, Any]:
        facts = {"id": f"stop_{scope}", "state": "in_force", "reason": "x", "created_at": 0}
        return {**facts, "scope": scope, "subject": subject}

    api = Recorded(
        {
            "GET /emergency_stops": [
                stop("product", PRODUCT),
                stop("region", "reg_1"),
                stop("provider", "hcloud"),
                stop("workspace", None),
            ],
            f"GET /products/{PRODUCT}": {"id": PRODUCT, "name": "shop"},
            "GET /regions": [{"id": "reg_1", "name": "frankfurt"}],
        }
    )
    list_stops(api.session())
    shown = [line.split()[:2] for line in api.out.getvalue().splitlines()[1:]]
    assert shown == [
        ["product", "shop"],
        ["region", "frankfurt"],
        ["provider", "hcloud"],
        ["workspace", "-"],
    ]
