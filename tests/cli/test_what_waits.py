"""What stands still, as lists and installs show it: approvals, silence, secrets that went."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from cli.commands.installs.changes import update_install
from cli.commands.installs.logs import show_logs
from cli.commands.installs.resources import get_install, list_installs, list_pods, show_status
from cli.commands.rollouts.resources import list_targets
from cli.commands.rollouts.verbs import approve_rollout
from cli.errors import CliError, ExitCode
from domain.identifiers import Prefix, new_id
from tests.cli.recorded import Answer, Recorded, refusal

INSTALL, OTHER, CLUSTER = new_id(Prefix.INSTALL), new_id(Prefix.INSTALL), new_id(Prefix.CLUSTER)
SECRET, ROLLOUT = new_id(Prefix.SECRET), new_id(Prefix.ROLLOUT)
APPROVE = "bulkhead installs approve 'shop eu'"


def _install(identifier: str, name: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields
    return {
        "id": identifier,
        "labels": {"name": name},
        "cluster_id": CLUSTER,
        "region_id": "reg_1",
        "package_version_id": "pkgv_1",
        "state": "syncing",
        "health": "Healthy",
        "channel": "stable",
        "reconciling": False,
        "etag": "1",
        "created_at": 0,
        "updated_at": 0,
        **more,
    }


def _operation(waiting_for: str | None, owner: str = INSTALL) -> dict[str, Any]:
    return {
        "id": "op_1",
        "owner_type": "install",
        "owner_id": owner,
        "state": "RUNNING",
        "done": False,
        "waiting_for": waiting_for,
    }


WAITING = _install(INSTALL, "shop eu", reconciling=True, active_operation_id="op_1")
CALM = _install(OTHER, "shop-us")


def _api(
    more: Mapping[str, Answer] | None = None, *, waiting_for: str | None = "approval"
) -> Recorded:
    answers: dict[str, Answer] = {
        "GET /installs": [WAITING, CALM],
        f"GET /installs/{INSTALL}": WAITING,
        f"GET /installs/{INSTALL}/status": {"resources": []},
        "GET /clusters": [{"id": CLUSTER, "name": "eu-1"}],
        "GET /products": [],
        "GET /operations": [_operation(waiting_for)],
        "GET /operations/op_1": _operation(waiting_for),
    }
    return Recorded({**answers, **(more or {})})


def test_a_list_of_installs_tells_which_wait_for_an_approval_and_how_it_is_given() -> None:
    api = _api()
    list_installs(api.session())
    _, waiting, calm = api.out.getvalue().splitlines()
    assert "waits for an approval" in waiting
    assert "waits" not in calm
    assert api.next_commands() == [APPROVE]
    # What a program reads is what the API said.
    as_json = _api()
    list_installs(as_json.session(as_json=True))
    assert "operations" not in {request.url.path for request in as_json.sent}
    assert not as_json.err.getvalue()


def test_an_install_that_only_works_is_busy() -> None:
    api = _api(waiting_for=None)
    list_installs(api.session())
    assert "busy" in api.out.getvalue()
    assert not api.next_commands()


def test_an_operation_that_began_long_ago_is_asked_for_by_its_install() -> None:
    def newest_or_own(request: httpx.Request) -> httpx.Response:
        own = request.url.params.get("owner_id")
        return refusal(500, "INTERNAL") if own is None else _page([_operation("approval", own)])

    api = _api({"GET /operations": newest_or_own})
    list_installs(api.session())
    assert api.next_commands() == [APPROVE]


def _page(entries: list[Any]) -> httpx.Response:
    return httpx.Response(200, json={"data": entries, "has_more": False, "next_cursor": None})


@pytest.mark.parametrize("show", [get_install, show_status])
def test_an_install_that_waits_for_an_approval_says_how_its_plan_is_seen_and_approved(
    show: Any,  # noqa: ANN401 - a command
) -> None:
    api = _api()
    show(api.session(), INSTALL)
    assert api.next_commands() == ["bulkhead installs plan 'shop eu'", APPROVE]


def test_the_status_of_an_install_that_is_being_made_says_which_step_runs() -> None:
    step = {"name": "wait_until_healthy", "status": "running", "duration_ms": 12_000}
    operation = {**_operation(None), "metadata": {"type": "install.create"}, "steps": [step]}
    api = _api({"GET /operations/op_1": operation})
    show_status(api.session(), INSTALL)
    assert "Installing shop eu: wait until healthy runs for 12.0 s." in api.err.getvalue()
    assert api.next_commands() == ["bulkhead operations watch op_1"]


def _target(state: str, waiting_for: str | None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "install_id": INSTALL,
        "workspace_id": "ws_1",
        "cluster_id": CLUSTER,
        "wave": 0,
        "state": state,
        "waiting_for": waiting_for,
        "operation_id": "op_1",
        **more,
    }


@pytest.mark.parametrize("rollout_state", ["running", "paused"])
@pytest.mark.parametrize(
    ("state", "waiting_for", "told"),
    [
        ("moving", None, "its operation waits for an approval"),
        ("moving", "operation", "its operation waits for an approval"),
        ("waiting", "busy", "another operation on it waits for an approval"),
    ],
)
def test_a_target_tells_that_an_approval_is_waited_for_before_its_rollout_knows(
    state: str, waiting_for: str | None, told: str, rollout_state: str
) -> None:
    rollout = {
        "id": ROLLOUT,
        "workspace_id": "ws_1",
        "product_id": "prod_1",
        "package_version_id": "pkgv_1",
        "state": rollout_state,
        "strategy": {"canary": 0},
    }
    targets = [_target(state, waiting_for), _target("waiting", "offline", install_id=OTHER)]
    paths: dict[str, Answer] = {
        f"GET /rollouts/{ROLLOUT}": rollout,
        f"GET /rollouts/{ROLLOUT}/targets": targets,
        f"GET /installs/{OTHER}": CALM,
    }
    api = _api(paths)
    list_targets(api.session(), ROLLOUT)
    _, first, second = api.out.getvalue().splitlines()
    assert told in first
    assert APPROVE in first
    assert "its cluster was not seen lately" in second
    # A customer's operations are the customer's.
    targets[0]["workspace_id"] = "ws_2"
    foreign = _api(paths)
    list_targets(foreign.session(), ROLLOUT)
    assert "approval" not in foreign.out.getvalue()


def _silent(request: httpx.Request) -> httpx.Response:
    assert request.url.params["follow"] == "false"
    return httpx.Response(200, text="event: end\ndata: {}\n\n")


@pytest.mark.parametrize(
    ("pods", "told", "hint"),
    [
        ([], "shop eu has no pods now, and so no logs.", "status"),
        ([{"name": "web-0"}], "The pods of shop eu have no such lines.", "pods"),
    ],
)
def test_logs_without_a_line_say_so_and_what_to_look_at(
    pods: list[Any], told: str, hint: str
) -> None:
    api = _api(
        {
            f"GET /installs/{INSTALL}/logs": _silent,
            f"GET /installs/{INSTALL}/pods": {"data": pods},
        }
    )
    show_logs(api.session(), INSTALL)
    assert api.out.getvalue() == ""
    assert told in api.err.getvalue()
    assert api.next_commands() == [f"bulkhead installs {hint} 'shop eu'"]


def test_an_install_without_pods_leads_to_its_status() -> None:
    api = _api({f"GET /installs/{INSTALL}/pods": {"data": []}})
    list_pods(api.session(), INSTALL)
    assert "bulkhead installs status 'shop eu'" in api.err.getvalue()


def _with_secret(state: str | None, refused_path: str) -> Recorded:
    """Have an install whose values refer to a secret that cannot be read."""
    values = {"web": [{"password": {"$secret": {"id": SECRET}}}]}
    refused = refusal(404, "NOT_FOUND", f"body.values.{refused_path}")
    secret: dict[str, Answer]
    secret = {} if state is None else {f"GET /secrets/{SECRET}": {"id": SECRET, "state": state}}
    return _api(
        {
            f"GET /installs/{INSTALL}": {**WAITING, "values": values},
            f"PATCH /installs/{INSTALL}": refused,
            f"POST /installs/{INSTALL}/renders": refused,
            **secret,
        }
    )


ANOTHER = "bulkhead installs update 'shop eu' --secret 'web[0].password=SECRET'"


@pytest.mark.parametrize(
    ("state", "hints"),
    [
        ("soft_deleted", [f"bulkhead secrets restore {SECRET}", ANOTHER]),
        ("active", [f"bulkhead secrets versions {SECRET}"]),
        (None, [ANOTHER]),
    ],
)
def test_values_with_a_secret_that_went_say_which_and_how_it_comes_back(
    state: str | None, hints: list[str]
) -> None:
    api = _with_secret(state, "web.0.password")
    with pytest.raises(CliError) as refused:
        update_install(api.session(), INSTALL, settings=["replicas=3"])
    assert list(refused.value.next_commands) == hints
    assert ("secret", SECRET) in refused.value.notes
    elsewhere = _with_secret(state, "replicas")
    with pytest.raises(CliError) as refused:
        update_install(elsewhere.session(), INSTALL, settings=["replicas=3"])
    assert list(refused.value.next_commands) == ["bulkhead secrets list"]


def test_values_that_were_taken_before_the_render_was_refused_are_said_to_be_kept() -> None:
    suspended = refusal(409, "FAILED_PRECONDITION", state="suspended", cluster_id=CLUSTER)
    api = _api(
        {
            f"PATCH /installs/{INSTALL}": {**WAITING, "values": {"replicas": 3}},
            f"POST /installs/{INSTALL}/renders": suspended,
        }
    )
    with pytest.raises(CliError) as refused:
        update_install(api.session(), INSTALL, settings=["replicas=3"])
    assert ("kept", "the new values, which the next update applies") in refused.value.notes
    assert refused.value.next_commands == (f"bulkhead clusters resume {CLUSTER}",)


def test_an_approval_of_a_rollout_that_only_its_installs_wait_for_leads_to_them() -> None:
    rollout = {"id": ROLLOUT, "state": "running", "plan_digest": "sha256:1"}
    api = _api({f"GET /rollouts/{ROLLOUT}": {**rollout, "waiting": {"approval": 1}}})
    with pytest.raises(CliError, match="Installs of it do") as refused:
        approve_rollout(api.session(), ROLLOUT, yes=True)
    assert refused.value.next_commands == (f"bulkhead rollouts targets {ROLLOUT}",)


def test_a_deleted_secret_is_not_given_to_an_install_by_its_name() -> None:
    deleted = {"id": SECRET, "name": "db", "state": "soft_deleted", "purge_at": 0}
    api = _api({"GET /secrets": [deleted]})
    with pytest.raises(CliError, match="Secret db is deleted") as refused:
        update_install(api.session(), INSTALL, secret=["password=db"])
    assert refused.value.exit_code is ExitCode.NOT_FOUND
    assert refused.value.next_commands == (f"bulkhead secrets restore {SECRET}",)
