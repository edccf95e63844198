"""A chart from a registry to a cluster and back, with commands alone."""

import time

import pytest

from infra.embedded.home import Home
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings
from tests.charts import Registry, archive
from tests.cli.conftest import Bulkhead

OBSERVED_WITHIN_SECONDS = 60
# Pods have no node here.
NO_PODS = ("--set", "replicas=0")


def _offer(bulkhead: Bulkhead, stack_home: Home) -> None:
    """Have a cluster, and a product whose package has two versions."""
    stack = Stack(stack_home, EmbeddedSettings.model_construct(home=None), durable=False)
    registry = Registry(stack.charts.host_and_port)
    for version in ("1.0.0", "1.1.0"):
        registry.push(archive("web", version))
    bulkhead.ok("regions", "create", "here")
    bulkhead.ok("clusters", "create", "demo")

    told = bulkhead.ok("packages", "create", "web", registry.url_of("web"), "--revision", "1.0.0")
    assert "next: bulkhead products create NAME --package web" in told
    assert "@sha256:" in bulkhead.ok("packages", "publish", "web", "1.1.0")
    assert bulkhead.run("packages", "publish", "web", "1.1.0").returncode == 5
    absent = bulkhead.run("packages", "publish", "web", "9.0.0")
    assert absent.returncode == 3, absent.stderr
    bulkhead.ok("products", "create", "shop", "--package", "web", "--version", "1.0.0")


def _status_once_seen(bulkhead: Bulkhead, install: str) -> str:
    """Return an install's status after the observer of its host has seen its objects."""
    deadline = time.monotonic() + OBSERVED_WITHIN_SECONDS
    while not bulkhead.json("installs", "status", install)["resources"]:
        assert time.monotonic() < deadline, "no object was ever seen"
        time.sleep(0.5)
    return bulkhead.ok("installs", "status", install)


@pytest.mark.full
def test_an_install_is_made_changed_explained_restored_and_deleted(
    bulkhead: Bulkhead, stack_home: Home
) -> None:
    _offer(bulkhead, stack_home)

    wrong = bulkhead.run(
        *("installs", "create", "shop", "--cluster", "demo", "--set", "replicas=many")
    )
    assert wrong.returncode == 2
    assert "at: body.initial_values.replicas" in wrong.stderr
    told = bulkhead.ok(
        *("installs", "create", "shop", "--cluster", "demo", "--label", "name=eu", *NO_PODS)
    )
    assert "eu is installed and healthy" in told
    # By its label, and by the only cluster that it can be on.
    assert bulkhead.json("installs", "get", "eu") == bulkhead.json("installs", "get", "demo")
    header, row = bulkhead.ok("installs", "list").splitlines()
    assert header.split()[:4] == ["NAME", "CLUSTER", "VERSION", "STATE"]
    assert row.split()[:3] == ["eu", "demo", "1.0.0"]
    assert "Deployment/web" in _status_once_seen(bulkhead, "eu")
    assert bulkhead.json("installs", "pods", "eu") == []
    off = bulkhead.run("installs", "logs", "eu")
    assert off.returncode == 5
    assert "next: bulkhead workspaces logs enable WORKSPACE" in off.stderr

    plan = bulkhead.ok("installs", "plan", "eu")
    assert "+ Deployment/web  added" in plan
    assert plan.startswith("Plan of the last deployment of eu")
    assert "Nothing waits to be done." in plan
    assert bulkhead.run("installs", "approve", "eu", "--yes").returncode == 5
    to_newer = ("--version", "1.1.0", "--set", "greeting=hi")
    assert "is updated" in bulkhead.ok("installs", "update", "eu", *to_newer)
    assert bulkhead.json("installs", "get", "eu")["values"] == {"replicas": 0, "greeting": "hi"}
    assert "+" in bulkhead.ok("installs", "diff", "eu")
    assert "~ Deployment/web  changed" in bulkhead.ok("installs", "plan", "eu")
    assert "it renders to the same" in bulkhead.ok(
        "installs", "update", "eu", "--set", "greeting=hi"
    )
    nothing = bulkhead.ok("installs", "plan", "eu")
    assert "rendered to what was there already" in nothing
    bulkhead.ok("installs", "restore", "eu")
    states = [entry["state"] for entry in bulkhead.json("installs", "renders", "eu")]
    assert states == ["deployed", "skipped", "deployed", "deployed"]
    assert "1.0.0" in bulkhead.ok("installs", "get", "eu")

    bulkhead.ok("installs", "hold", "eu", "--reason", "Sale", "--for", "2h")
    assert "Sale" in bulkhead.ok("installs", "get", "eu")
    bulkhead.ok("installs", "release", "eu")
    shown = bulkhead.ok(
        *("installs", "auto-update", "eu", "on", "--window", "mon-fri 22:00-04:00 Europe/Berlin")
    )
    assert "22:00 to 04:00 on mon, tue, wed, thu, fri (Europe/Berlin)" in shown
    bulkhead.ok("installs", "auto-update", "eu", "off", "--any-time")
    assert "was not compared with its render yet" in bulkhead.ok("installs", "drift", "eu")
    looked = bulkhead.ok("installs", "drift", "eu", "--look")
    assert "Every live object is as it was rendered, as of" in looked

    rolled = bulkhead.ok("rollouts", "create", "shop", "1.1.0", "--bake", "0")
    assert "The rollout has succeeded" in rolled
    assert "1.1.0" in bulkhead.ok("installs", "get", "eu")
    unsure = bulkhead.run("installs", "delete", "eu")
    assert unsure.returncode == 2
    assert "needs --yes" in unsure.stderr
    assert "nothing of it is left" in bulkhead.ok("installs", "delete", "eu", "--yes")
    assert bulkhead.json("installs", "list") == []
    bulkhead.ok("products", "archive", "shop")
