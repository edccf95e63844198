"""Rollouts, and what they need, at the terminal."""

import io
import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from cli.client import ApiClient
from cli.configuration import Connection
from cli.errors import CliError
from cli.output import Output
from cli.rollout_names import wave_called, wave_name
from cli.rollout_progress import RolloutProgress
from cli.rollout_views import LiveRollout, RolloutLines
from domain.identifiers import Prefix, new_id
from infra.embedded.home import Home
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings
from tests.cli.conftest import Bulkhead

PRODUCT, VERSION = new_id(Prefix.PRODUCT), new_id(Prefix.PACKAGE_VERSION)
OFFLINE, HELD, FAILED, DONE = (new_id(Prefix.INSTALL) for _ in range(4))
NOW = 1_000_000
# How the API tells where installs are that have no label: one of its own, one of a customer.
PLACES = {
    DONE: {"cluster_id": "clu_1", "granted": False},
    HELD: {"granted": True, "customer_workspace": {"id": "ws_2", "name": "Acme"}},
}


def _target(install: str, state: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields
    nothing = {"waiting_for": None, "next_try_at": None, "attempts": 0, "last_error": None}
    place = {"install_id": install, "cluster_id": "clu_1", "wave": 1, "started_at": None}
    place["workspace_id"] = "ws_2" if install == HELD else "ws_1"
    return {**place, "state": state, "operation_id": None, **nothing, **more}


TARGETS = [
    _target(OFFLINE, "waiting", waiting_for="offline", attempts=3, next_try_at=NOW + 45),
    _target(HELD, "waiting", waiting_for="hold"),
    _target(FAILED, "failed", last_error={"message": "Deployment/web never became healthy."}),
    _target(DONE, "succeeded", wave=0),
]
EVENTS = [
    {
        "sequence": 1,
        "kind": "x",
        "wave": None,
        "install_id": None,
        "message": "4 installs.",
        "at": NOW - 60,
    },
    {
        "sequence": 2,
        "kind": "x",
        "wave": 1,
        "install_id": FAILED,
        "message": "Failed.",
        "at": NOW - 5,
    },
]
ROLLOUT = {
    "id": new_id(Prefix.ROLLOUT),
    "workspace_id": "ws_1",
    "product_id": PRODUCT,
    "package_version_id": VERSION,
    "state": "running",
    "done": False,
    "plan_only": False,
    "reason": None,
    "wave": 1,
    "waves": [
        {"wave": 0, "targets": 1, "counts": {"succeeded": 1}},
        {"wave": 1, "targets": 3, "counts": {"waiting": 2, "failed": 1}},
        {"wave": 2, "targets": 9, "counts": {"pending": 9}},
    ],
    "counts": {"succeeded": 1, "waiting": 2, "failed": 1, "pending": 9},
    "strategy": {"canary": 1, "gate": "none"},
    "plan_digest": None,
    "bake_until": NOW + 30,
    "created_at": NOW - 60,
    "completed_at": None,
}


def _answer(request: httpx.Request) -> httpx.Response:
    path, query = request.url.path, request.url.params
    if path.endswith("/targets"):
        found = [one for one in TARGETS if query.get("state") in {None, one["state"]}]
        return httpx.Response(200, json={"data": found, "has_more": False, "next_cursor": None})
    if path.endswith("/events"):
        return httpx.Response(200, json={"data": EVENTS, "has_more": False, "next_cursor": None})
    if "/installs/" in path:
        labels = {"name": "shop-eu"} if path.endswith(OFFLINE) else {}
        place = PLACES.get(path.rsplit("/", 1)[-1], {})
        return httpx.Response(200, json={"id": path, "labels": labels, **place})
    if path.endswith(f"/products/{PRODUCT}"):
        return httpx.Response(200, json={"name": "shop"})
    if "/clusters/" in path:
        return httpx.Response(200, json={"name": "eu-1"})
    return httpx.Response(200, json=ROLLOUT)


@pytest.fixture
def progress() -> RolloutProgress:
    connection = Connection(url="https://api.example", token="t")
    client = ApiClient(connection, transport=httpx.MockTransport(_answer))
    return RolloutProgress(client, ROLLOUT, wall_clock=lambda: NOW)


def test_a_live_table_tells_waves_and_why_each_install_waits(progress: RolloutProgress) -> None:
    progress.refresh()
    screen = io.StringIO()
    console = Console(file=screen, width=140, force_terminal=False)
    console.print(LiveRollout(progress, "Rolling out shop 2.0.0", ascii_only=True))
    shown = screen.getvalue()
    assert "Rolling out shop 2.0.0  running  60.0 s" in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "+ canary #################### 1/1 1 moved" in lines
    assert "x 1 .................... 0/3 2 waiting, 1 failed" in lines
    assert ". 2 .................... 0/9" in lines
    offline = "shop-eu 1 waiting its cluster was not seen lately, tried 3 times, tried again in 45s"
    assert offline in lines
    assert "bulkhead clusters get clu_1" in lines
    assert f"bulkhead installs release {HELD} (by its customer)" in lines
    assert "Deployment/web never became healthy." in shown
    assert "looks at wave 1 for another 30" in shown
    assert f"wave 1: {FAILED}: Failed." in " ".join(shown.split())


def test_installs_have_names_in_sentences_and_ids_only_where_they_are_typed(
    progress: RolloutProgress,
) -> None:
    told = f"The canary spent its error budget: 3 of 3 failed ({DONE}, {HELD}, {OFFLINE})."
    named = f"shop on eu-1, shop {HELD[-6:]} of Acme, shop-eu"
    assert progress.in_words(told) == told.replace(f"{DONE}, {HELD}, {OFFLINE}", named)
    assert [view.name for view in map(progress.view_of, TARGETS)][1] == f"shop {HELD[-6:]} of Acme"
    assert HELD in progress.view_of(TARGETS[1]).command


def test_waves_are_called_the_same_whether_there_is_a_canary_or_not() -> None:
    tried = {"strategy": {"canary": 2}}
    at_once = {"strategy": {"canary": 0}}
    assert [wave_name(tried, wave) for wave in range(3)] == ["canary", "1", "2"]
    assert [wave_name(at_once, wave) for wave in range(3)] == ["1", "2", "3"]
    for rollout in (tried, at_once):
        names = [wave_name(rollout, wave) for wave in range(3)]
        assert [wave_called(rollout, name) for name in names] == [0, 1, 2]
        with pytest.raises(CliError, match="is no wave: they are called"):
            wave_called(rollout, "0")
    with pytest.raises(CliError, match="there is no canary"):
        wave_called(at_once, "canary")


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"succeeded": 2}, "completed"),
        ({"succeeded": 1, "skipped": 1}, "completed"),
        ({"skipped": 2}, "skipped"),
        ({"succeeded": 1, "failed": 1}, "failed"),
    ],
)
def test_what_was_left_out_does_not_count_as_moved(counts: dict[str, int], status: str) -> None:
    client = ApiClient(Connection(url="https://api.example", token="t"))
    ended = {
        **ROLLOUT,
        "state": "succeeded",
        "waves": [{"wave": 0, "targets": 2, "counts": counts}],
    }
    (wave,) = RolloutProgress(client, ended).waves()
    told = [counts.get(state, 0) for state in ("succeeded", "skipped", "failed")]
    assert [wave.moved, wave.skipped, wave.failed] == told
    assert wave.status == status


def test_a_log_gets_each_line_and_each_reason_once(progress: RolloutProgress) -> None:
    told = io.StringIO()
    lines = RolloutLines(progress, "Rolling out shop 2.0.0", Output(out=io.StringIO(), err=told))
    lines.refresh(progress.refresh())
    lines.refresh(progress.refresh())
    shown = told.getvalue()
    assert shown.count("4 installs.") == 1
    assert shown.count("shop-eu waits: its cluster was not seen lately") == 1
    assert "next: bulkhead clusters get clu_1" in shown


def test_a_log_tells_of_an_install_whose_operation_waits_for_an_approval(
    progress: RolloutProgress,
) -> None:
    told = io.StringIO()
    lines = RolloutLines(progress, "Rolling out shop 2.0.0", Output(out=io.StringIO(), err=told))
    events = progress.refresh()
    for state in ("moving", "rolling_back", "failed"):
        progress.targets = [{**TARGETS[0], "state": state, "waiting_for": "approval"}]
        lines.refresh(events)
        assert told.getvalue().count("waits for an approval") == 1, state


def test_stops_are_made_listed_and_lifted(bulkhead: Bulkhead) -> None:
    unsure = bulkhead.run("stops", "create", "--reason", "Incident 42")
    assert unsure.returncode == 2
    assert "needs --yes" in unsure.stderr
    assert bulkhead.run("stops", "create", "--reason", "x", "--of", "shop").returncode == 2
    shown = bulkhead.ok("stops", "create", "--reason", "Incident 42", "--yes")
    (stop,) = bulkhead.json("stops", "list")
    assert f"next: bulkhead stops lift {stop['id']}" in shown
    assert "workspace" in bulkhead.ok("stops", "list")
    bulkhead.ok("stops", "create", "--reason", "Incident 43", "--yes")
    lifted = bulkhead.ok("stops", "lift", stop["id"])
    assert "1 other stop is in force" in lifted
    assert "next: bulkhead stops list" in lifted
    assert "everything goes on" in bulkhead.ok("stops", "lift")
    assert bulkhead.json("stops", "list") == []
    assert bulkhead.json("stops", "list", "--all")[0]["state"] == "lifted"
    assert bulkhead.run("stops", "lift").returncode == 3
    nothing = bulkhead.run("stops", "list")
    assert nothing.stdout == ""
    assert "Nothing is stopped in workspace test" in nothing.stderr
    # Nobody shall stop a workspace because a list that is empty proposed it.
    assert "--reason" not in nothing.stderr


def test_logs_are_off_until_an_owner_lets_them_be_read(bulkhead: Bulkhead) -> None:
    workspace = bulkhead.environment["BULKHEAD_WORKSPACE"]
    assert "off" in bulkhead.ok("workspaces", "get", workspace)
    assert "may write secrets" in " ".join(
        bulkhead.ok("workspaces", "logs", "enable", workspace).split()
    ).replace("\n", " ")
    assert bulkhead.json("workspaces", "get", workspace)["install_logs_enabled"]
    bulkhead.ok("workspaces", "logs", "disable", workspace)
    assert not bulkhead.json("workspaces", "get", workspace)["install_logs_enabled"]


def test_a_registrys_credential_comes_from_a_pipe_and_is_never_shown(bulkhead: Bulkhead) -> None:
    create = ("registries", "create", "ours", "registry.example.com", "--username", "ci")
    assert bulkhead.run(*create).returncode == 2
    made = bulkhead.run(*create, stdin="hunter2\n")
    assert made.returncode == 0, made.stderr
    assert "packages create NAME oci://registry.example.com/CHART" in made.stdout
    listed = bulkhead.ok("registries", "list", "--json")
    assert "hunter2" not in made.stdout + made.stderr + listed
    assert bulkhead.run("registries", "delete", "ours").returncode == 2
    bulkhead.ok("registries", "delete", "ours", "--yes")
    assert bulkhead.json("registries", "list") == []
    assert bulkhead.run("registries", "create", "two", "x.example").returncode == 2


def test_empty_lists_say_how_to_begin(bulkhead: Bulkhead) -> None:
    for noun, begin in (
        ("registries", "bulkhead registries create NAME ADDRESS"),
        ("packages", "bulkhead packages create NAME"),
        ("products", "bulkhead products create NAME"),
        ("installs", "bulkhead installs create PRODUCT"),
        ("grants", "bulkhead grants give INSTALL"),
        ("rollouts", "bulkhead rollouts create PRODUCT VERSION"),
    ):
        empty = bulkhead.run(noun, "list")
        assert (empty.returncode, empty.stdout) == (0, ""), empty.stderr
        assert begin in empty.stderr
    nothing = bulkhead.run("rollouts", "watch")
    assert nothing.returncode == 3
    assert "next: bulkhead rollouts list" in nothing.stderr
    assert bulkhead.run("installs", "get", "shop").returncode == 3
    assert bulkhead.run("installs", "create", "--cluster", "demo").returncode == 2


def _add_rollout(home: Home, workspace: str, state: str) -> str:
    """Write down a rollout of a product as workers leave it."""
    package, rollout = new_id(Prefix.PACKAGE), new_id(Prefix.ROLLOUT)
    product, version = new_id(Prefix.PRODUCT), new_id(Prefix.PACKAGE_VERSION)
    strategy = {
        "canary": 1,
        "waves": [{"percent": 100}],
        "concurrency": 5,
        "bake_seconds": 60,
        "error_budget": {"count": 0},
        "checks": [{"kind": "workload"}],
        "gate": "none",
        "automatic_rollback": True,
        "deadline_seconds": 86400,
    }
    caller = {"principal_id": "usr_1", "kind": "user", "workspace_id": workspace, "role": "owner"}
    stack = Stack(home, EmbeddedSettings.model_construct(home=None), durable=False)
    with stack.administrator("bulkhead") as connection:
        connection.execute(
            "INSERT INTO packages (workspace_id, id, name, source_kind, source_url, chart, version,"
            " latest_version_id) VALUES (%s, %s, 'shop', 'oci', 'oci://nowhere.test/shop', '', 1,"
            " %s)",
            (workspace, package, version),
        )
        connection.execute(
            "INSERT INTO package_versions (workspace_id, id, package_id, semver, sort_key, channel,"
            " ref, chart_digest, input_schema, default_values, compatibility) VALUES"
            " (%s, %s, %s, '2.0.0', '2', 'stable', 'oci://nowhere.test/shop@sha256:1', 'sha256:1',"
            " '{}', '{}', '{}')",
            (workspace, version, package),
        )
        connection.execute(
            "INSERT INTO products (workspace_id, id, package_id, name, version_pin,"
            " marketplace_published, state, version) VALUES (%s, %s, %s, 'shop',"
            " '{\"kind\": \"latest\"}', false, 'active', 1)",
            (workspace, product, package),
        )
        connection.execute(
            "INSERT INTO rollouts (workspace_id, id, product_id, package_version_id, selector,"
            " strategy, plan_only, state, reason, wave, waves, counts, approvals, caller, version,"
            " completed_at) VALUES (%s, %s, %s, %s, '{}', %s, false, %s, 'The canary failed.', 0,"
            " 2, '{\"failed\": 1, \"pending\": 1}', '[]', %s, 1, now())",
            (workspace, rollout, product, version, json.dumps(strategy), state, json.dumps(caller)),
        )
        for position, (target, message) in enumerate(
            (("failed", '{"message": "Deployment/web never became healthy."}'), ("pending", None))
        ):
            connection.execute(
                "INSERT INTO rollout_targets (workspace_id, rollout_id, install_id, grant_id,"
                " customer_workspace_id, cluster_id, region_id, wave, position, state, attempts,"
                " last_error) VALUES (%s, %s, %s, '', %s, 'clu_1', 'reg_1', %s, %s, %s, 1, %s)",
                (
                    workspace,
                    rollout,
                    new_id(Prefix.INSTALL),
                    workspace,
                    position,
                    position,
                    target,
                    message,
                ),
            )
        connection.execute(
            "INSERT INTO rollout_events (workspace_id, rollout_id, sequence, kind, wave, message)"
            " VALUES (%s, %s, 1, 'wave.failed', 0, 'The wave failed and is taken back.')",
            (workspace, rollout),
        )
    return rollout


def test_a_rollout_that_failed_says_where_and_why(bulkhead: Bulkhead, stack_home: Home) -> None:
    rollout = _add_rollout(stack_home, bulkhead.environment["BULKHEAD_WORKSPACE"], "failed")
    assert "shop" in bulkhead.ok("packages", "list")
    assert "2.0.0" in bulkhead.ok("packages", "get", "shop")
    assert "latest" in bulkhead.ok("products", "list")
    header, row = bulkhead.ok("rollouts", "list").splitlines()
    assert header.split()[:3] == ["PRODUCT", "VERSION", "STATE"]
    assert row.split()[:3] == ["shop", "2.0.0", "failed"]
    shown = bulkhead.ok("rollouts", "get")
    assert "shop 2.0.0" in shown
    assert "The canary failed." in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["WAVE", "INSTALLS", "MOVED", "SKIPPED", "FAILED", "OTHERS"] in rows
    assert ["canary", "1", "0", "0", "1", "-"] in rows
    assert ["1", "1", "0", "0", "0", "1", "to", "come"] in rows
    targets = bulkhead.ok("rollouts", "targets", rollout, "--state", "failed")
    assert "canary" in targets
    assert "Deployment/web never became healthy." in targets
    assert "canary: The wave failed" in bulkhead.ok("rollouts", "events", rollout)

    watched = bulkhead.run("rollouts", "watch", rollout)
    assert watched.returncode == 7
    assert "The wave failed and is taken back." in watched.stderr
    assert f"next: bulkhead rollouts targets {rollout} --state failed" in watched.stderr
    for verb in (["pause"], ["cancel", "--yes"], ["rollback", "--yes", "--no-wait"]):
        refused = bulkhead.run("rollouts", verb[0], rollout, *verb[1:])
        assert refused.returncode == 5, refused.stderr
    assert bulkhead.run("rollouts", "approve", rollout, "--yes").returncode == 5
    assert bulkhead.json("rollouts", "targets", rollout, "--wave", "canary")[0]["wave"] == 0
    assert bulkhead.run("rollouts", "targets", rollout, "--wave", "0").returncode == 2
    nobody = bulkhead.run("rollouts", "create", "shop", "2.0.0", "--no-wait")
    assert nobody.returncode == 2
    assert "No install of the product" in nobody.stderr
    assert bulkhead.run("rollouts", "create", "shop", "9.9.9", "--no-wait").returncode == 3


def test_a_rollout_that_a_person_took_back_has_not_failed(
    bulkhead: Bulkhead, stack_home: Home
) -> None:
    workspace = bulkhead.environment["BULKHEAD_WORKSPACE"]
    rollout = _add_rollout(stack_home, workspace, "rolled_back")
    watched = bulkhead.run("rollouts", "watch", rollout)
    assert watched.returncode == 8
    assert "taken back, as was asked for" in watched.stderr

    # One of them could not return.
    stack = Stack(stack_home, EmbeddedSettings.model_construct(home=None), durable=False)
    with stack.administrator("bulkhead") as connection:
        connection.execute(
            "UPDATE rollout_targets SET rollback_operation_id = 'op_1'"
            " WHERE rollout_id = %s AND state = 'failed'",
            (rollout,),
        )
    watched = bulkhead.run("rollouts", "watch", rollout)
    assert watched.returncode == 7
    assert "1 install could not be taken back" in watched.stderr
