"""A cluster's life at the terminal, with a real API server at its end."""

import json
import stat
import subprocess

import pytest

from infra.embedded.home import Home
from infra.embedded.server import Part
from infra.embedded.stack import Stack
from tests.cli.conftest import Bulkhead

CREATE_STEPS = [
    "ensure_secret_space",
    "ensure_authorities",
    "ensure_credentials",
    "start_components",
    "wait_until_ready",
]


@pytest.fixture
def region(bulkhead: Bulkhead) -> str:
    created: str = bulkhead.json("regions", "create", "here")["id"]
    return created


def _namespaces(home: Home, kubeconfig: str) -> str:
    return subprocess.run(
        [home.programs / "kubectl", "--kubeconfig", kubeconfig, "get", "namespaces"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


@pytest.mark.usefixtures("region")
def test_a_cluster_lives_from_create_to_delete(bulkhead: Bulkhead, stack_home: Home) -> None:
    created = bulkhead.run("clusters", "create", "demo", "--region", "here")
    assert created.returncode == 0, created.stderr
    assert created.stdout.startswith("✓ Cluster demo is active after ")
    for step in CREATE_STEPS:
        assert f"  {step}: completed in " in created.stderr

    again = bulkhead.run("clusters", "create", "demo", "--region", "here")
    assert again.returncode == 5
    assert bulkhead.json("clusters", "list")[0]["id"] in again.stderr
    assert "next: bulkhead clusters create demo --allow-same-name" in again.stderr

    kubeconfig = bulkhead.folder / "demo.kubeconfig"
    bulkhead.ok("clusters", "kubeconfig", "demo", "-o", "demo.kubeconfig")
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    assert "kube-system" in _namespaces(stack_home, str(kubeconfig))
    bulkhead.ok("clusters", "kubeconfig", "demo", "-o", "demo.kubeconfig")
    kubeconfig.write_text("clusters of somebody else")
    kept = bulkhead.run("clusters", "kubeconfig", "demo", "-o", "demo.kubeconfig")
    assert (kept.returncode, kubeconfig.read_text()) == (1, "clusters of somebody else")

    assert bulkhead.json("clusters", "update", "demo", "--name", "renamed")["name"] == "renamed"
    assert bulkhead.run("clusters", "get", "demo").returncode == 3

    bulkhead.ok("clusters", "suspend", "renamed")
    again = bulkhead.run("clusters", "suspend", "renamed")
    assert again.returncode == 5
    assert "reason: FAILED_PRECONDITION" in again.stderr
    assert "request: req_" in again.stderr
    bulkhead.ok("clusters", "resume", "renamed")

    refused = bulkhead.run("clusters", "delete", "renamed")
    assert refused.returncode == 2
    assert "needs --yes" in refused.stderr
    deleted = bulkhead.json("clusters", "delete", "renamed", "--yes")
    assert deleted["state"] == "SUCCEEDED"
    assert bulkhead.json("clusters", "list") == []
    history = bulkhead.json("operations", "list")
    assert [entry["metadata"]["type"] for entry in history] == [
        "cluster.delete",
        "cluster.resume",
        "cluster.suspend",
        "cluster.create",
    ]


def test_an_operation_is_cancelled_and_says_so_ever_after(bulkhead: Bulkhead, region: str) -> None:
    # So that it has not ended by itself before it is asked to stop.
    stop = bulkhead.json("stops", "create", "--reason", "A test", "--yes")
    operation = bulkhead.json("clusters", "create", "demo", "--region", region, "--no-wait")
    busy = bulkhead.run("clusters", "suspend", operation["owner_id"])
    assert busy.returncode == 5
    assert f"next: bulkhead operations watch {operation['id']}" in busy.stderr

    cancelled = bulkhead.json("operations", "cancel", operation["id"])
    assert cancelled["state"] == "CANCELLED"
    bulkhead.ok("stops", "lift", stop["id"])

    watched = bulkhead.run("operations", "watch", operation["id"], "--json")
    assert watched.returncode == 8
    assert json.loads(watched.stdout)["state"] == "CANCELLED"
    assert bulkhead.run("operations", "cancel", operation["id"]).returncode == 5
    assert bulkhead.run("operations", "watch").returncode == 3
    assert bulkhead.json("clusters", "list") == []


@pytest.mark.usefixtures("region")
def test_an_interrupt_leaves_the_operation_running_and_a_delete_is_confirmed_by_name(
    bulkhead: Bulkhead,
) -> None:
    code, shown = bulkhead.on_terminal(
        ["clusters", "create", "demo"], ("wait until ready", "\x03"), NO_COLOR="1"
    )
    assert code == 130
    assert "goes on without this terminal" in shown
    running = bulkhead.json("operations", "list")[0]
    assert f"bulkhead operations cancel {running['id']}" in shown
    # NO_COLOR takes colours away; bold, dim and the redrawing stay.
    assert "\x1b[3" not in shown.replace("\x1b[3m", "")

    assert "succeeded" in bulkhead.ok("operations", "watch", running["id"])

    question = "Type its name, demo, to go on"
    code, shown = bulkhead.on_terminal(["clusters", "delete", "demo"], (question, "demon\n"))
    assert (code, "Nothing was deleted" in shown) == (1, True)
    code, shown = bulkhead.on_terminal(["clusters", "delete", "demo"], (question, "\x03"))
    assert code == 130
    assert bulkhead.json("clusters", "get", "demo")["state"] == "active"
    code, shown = bulkhead.on_terminal(["clusters", "delete", "demo"], (question, "demo\n"))
    assert code == 0, shown
    assert "nothing is left of it" in shown


@pytest.mark.usefixtures("region")
def test_watching_survives_the_death_of_the_api(bulkhead: Bulkhead, stack_home: Home) -> None:
    watching = bulkhead.start("clusters", "create", "demo")
    assert watching.stderr is not None
    while "wait_until_ready: running" not in watching.stderr.readline():
        assert watching.poll() is None
    _kill_api(stack_home)
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "Cluster demo is active" in out


def _kill_api(home: Home) -> None:
    Stack(home).supervisor.restart(Part.API, Part.API, "KILL")


def test_names_are_exact_and_unique_or_refused(bulkhead: Bulkhead, region: str) -> None:
    other = bulkhead.json("regions", "create", "here")["id"]
    ambiguous = bulkhead.run("clusters", "create", "demo", "--region", "here")
    assert ambiguous.returncode == 2
    assert region in ambiguous.stderr
    assert other in ambiguous.stderr

    unchosen = bulkhead.run("clusters", "create", "demo")
    assert unchosen.returncode == 2
    assert "choose one with --region" in unchosen.stderr
    assert f"here ({region})" in unchosen.stderr

    unknown = bulkhead.run("clusters", "create", "demo", "--region", f"reg_{'0' * 32}")
    assert unknown.returncode == 3
    assert "next: bulkhead regions list" in unknown.stderr
    absent = bulkhead.run("clusters", "get", "here")
    assert absent.returncode == 3
    assert "looked in: workspace test (ws_" in absent.stderr


def test_bad_input_names_the_field(bulkhead: Bulkhead) -> None:
    result = bulkhead.run("regions", "create", "x" * 101, "--json")
    assert result.returncode == 2
    error = json.loads(result.stderr)["error"]
    assert error["errors"][0]["path"] == ["body", "name"]
    assert error["request_id"].startswith("req_")


def test_empty_lists_say_how_to_begin(bulkhead: Bulkhead) -> None:
    for noun in ("clusters", "regions", "tokens"):
        result = bulkhead.run(noun, "list")
        assert (result.returncode, result.stdout) == (0, "")
        assert f"bulkhead {noun} create NAME" in result.stderr
        assert f"in workspace test ({bulkhead.environment['BULKHEAD_WORKSPACE']})" in result.stderr
    assert "compute/clusters" in bulkhead.ok("quotas", "list")
