"""Machines in clouds at the terminal: what is chosen, told before the create, and refused."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Bulkhead

CANARY = "canary-hcloud-token-83b1"
_PLACES = ("--place", "fsn1", "--image", "ubuntu-24.04")


@pytest.fixture
def config(bulkhead: Bulkhead) -> str:
    """A compute config for Hetzner, with its secret; the provider was never asked."""
    created = bulkhead.run(
        *("compute-configs", "create", "hetzner", "--provider", "hcloud", *_PLACES, "--json"),
        stdin=CANARY,
    )
    assert created.returncode == 0, created.stderr
    assert CANARY not in created.stdout + created.stderr
    config_id: str = json.loads(created.stdout)["id"]
    return config_id


def test_a_compute_config_lives_from_create_to_delete(bulkhead: Bulkhead, config: str) -> None:
    secret = bulkhead.json("secrets", "list")[0]
    assert (secret["kind"], secret["name"]) == ("cloud_provider/hcloud", "hetzner credential")

    header, row = bulkhead.ok("compute-configs", "list").splitlines()
    assert header.split()[:4] == ["NAME", "PROVIDER", "PLACE", "IMAGE"]
    assert row.split()[:4] == ["hetzner", "hcloud", "fsn1", "ubuntu-24.04"]

    again = bulkhead.json("compute-configs", "create", "other", "--secret", secret["id"], *_PLACES)
    assert again["provider"] == "hcloud"
    changed = bulkhead.ok(
        *("compute-configs", "update", "other", "--place", "nbg1", "--fallback", "hel1")
    )
    assert "nbg1" in changed
    assert "hel1" in changed
    assert "the current one" in bulkhead.ok("compute-configs", "get", "other")
    assert bulkhead.run("compute-configs", "update", "other").returncode == 2
    unsure = bulkhead.run("compute-configs", "delete", "other")
    assert "needs --yes" in unsure.stderr
    deleted = bulkhead.run("compute-configs", "delete", "other", "--yes")
    assert "its secret stays" in deleted.stdout + deleted.stderr
    assert f"next: bulkhead secrets delete {secret['id']}" in deleted.stdout + deleted.stderr
    absent = bulkhead.run("compute-configs", "get", "other")
    assert absent.returncode == 3
    assert "next: bulkhead compute-configs list" in absent.stderr
    assert [each["id"] for each in bulkhead.json("compute-configs", "list")] == [config]


def test_a_credential_is_never_an_argument_and_its_kind_says_whose_it_is(
    bulkhead: Bulkhead, tmp_path: Path
) -> None:
    where = ("compute-configs", "create", "aws", "--place", "eu-central-1a", "--image", "ami-0a1")
    whose = bulkhead.run(*where, stdin=CANARY)
    assert whose.returncode == 2
    assert "--provider hcloud, aws or gcp" in whose.stderr
    assert bulkhead.json("secrets", "list") == []

    key = tmp_path / "key.json"
    key.write_text(json.dumps({"access_key_id": "AKIA" * 5, "secret_access_key": CANARY}))
    made = bulkhead.json(*where, "--provider", "aws", "--credential-file", str(key))
    assert made["provider"] == "aws"
    both = bulkhead.run(*where, "--secret", "aws credential", "--credential-file", str(key))
    assert both.returncode == 2

    generic = bulkhead.run("secrets", "create", "stripe", "--json", stdin="x")
    wrong = bulkhead.run(*where, "--secret", json.loads(generic.stdout)["id"])
    assert wrong.returncode == 2
    assert "no credential of a cloud" in wrong.stderr


def test_a_config_that_is_refused_keeps_its_new_secret_and_says_which(bulkhead: Bulkhead) -> None:
    refused = bulkhead.run(
        *("compute-configs", "create", "gcp", "--provider", "gcp", "--image", "debian-13"),
        *("--place", "europe-west3"),
        stdin=CANARY,
    )
    assert refused.returncode == 2
    assert "europe-west3-a" in refused.stderr
    secret = bulkhead.json("secrets", "list")[0]["id"]
    assert f"next: the same command with --secret {secret}" in refused.stderr


def test_the_places_of_a_workspace_and_the_size_of_a_cluster_are_bounded(
    bulkhead: Bulkhead, config: str
) -> None:
    assert "everywhere" in bulkhead.ok("workspaces", "compute-policy")
    bulkhead.ok("workspaces", "compute-policy", "--allow", "hcloud/nbg1")
    assert "hcloud/nbg1" in bulkhead.ok("workspaces", "compute-policy")

    bulkhead.ok("regions", "create", "here")
    bulkhead.ok("clusters", "create", "demo")
    settings = bulkhead.json("clusters", "compute-settings", "demo", "--max-machines", "0")
    assert (settings["machines"], settings["max_machines"]) == (0, 0)
    assert "At most" in bulkhead.ok("clusters", "compute-settings", "demo")

    create = ("machines", "create", "demo", "--config", config, "--type", "cpx22")
    # The place is refused before anybody is asked for a price.
    elsewhere = bulkhead.run(*create)
    assert elsewhere.returncode == 4
    assert "hcloud/fsn1" in elsewhere.stderr
    bulkhead.ok("workspaces", "compute-policy", "--allow-everywhere")
    assert bulkhead.run(*create, "--fallback", ":").returncode == 2
    assert bulkhead.run(*create, "--dry-run", "--no-wait").returncode == 2
    assert bulkhead.json("machines", "list") == []


def test_a_workspace_without_clouds_has_no_leaks(bulkhead: Bulkhead) -> None:
    assert "0 left" in bulkhead.ok("leaks")
    assert bulkhead.json("leaks") == []
