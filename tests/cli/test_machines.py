"""Machines and the rights to become one at the terminal."""

import json
import re

from domain.identifiers import Prefix, new_id
from infra.embedded.home import Home
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings
from tests.cli.conftest import Bulkhead


def _add_machine(home: Home, workspace: str, cluster: str) -> str:
    """Write down a machine as a server that joined long ago would be."""
    machine = new_id(Prefix.MACHINE)
    stack = Stack(home, EmbeddedSettings.model_construct(home=None), durable=False)
    with stack.administrator("bulkhead") as connection:
        connection.execute(
            "INSERT INTO machines (workspace_id, id, cluster_id, kind, name, state, stage,"
            " schedulable, identity_key, identity_key_hash, operating_system, architecture,"
            " hostname, addresses, artifact_set, instruction, health, health_reason,"
            " health_candidate, version, node_seen_at, client_certificate_expires_at,"
            " client_certificate_renewed_at, serving_certificate_expires_at)"
            " VALUES (%s, %s, %s, 'own_server', 'web-1', 'ACTIVE', 'ready', false, 'x', %s,"
            " 'linux', 'amd64', 'web-1', '[\"10.1.2.3\"]', 'x', 'none', 'not_ready',"
            " 'KubeletNotReady: the network plugin is missing', 'not_ready', 1, now(),"
            " now() + interval '5 hours 30 minutes', now() - interval '3 hours 30 minutes',"
            " now() + interval '9 hours')",
            (workspace, machine, cluster, machine.encode()),
        )
        connection.execute(
            "INSERT INTO operations (workspace_id, id, type, owner_type, owner_id, state,"
            " request, placement, caller, cancellable, version, started_at, completed_at)"
            " VALUES (%s, %s, 'machine.cordon', 'machine', %s, 'SUCCEEDED', '{}', %s, '{}', false,"
            " 1, now(), now())",
            (workspace, new_id(Prefix.OPERATION), machine, json.dumps({"cluster_id": cluster})),
        )
    return machine


def test_a_machine_is_shown_with_its_health_and_its_certificates(
    bulkhead: Bulkhead, stack_home: Home
) -> None:
    empty = bulkhead.run("machines", "list")
    assert empty.returncode == 0
    assert "bulkhead bootstraps create CLUSTER" in empty.stderr
    bulkhead.ok("regions", "create", "here")
    cluster = bulkhead.json("clusters", "create", "demo")["owner_id"]
    assert "Certificates" in bulkhead.ok("clusters", "get", "demo")

    # Nothing but loopback is listened on here.
    refused = bulkhead.run("bootstraps", "create", "demo")
    assert refused.returncode == 5
    assert "BULKHEAD_NODE_ADDRESS" in refused.stderr
    assert bulkhead.json("bootstraps", "list", "demo") == []
    assert bulkhead.run("bootstraps", "create", "demo", "--ttl", "30s").returncode == 2
    absent = bulkhead.run("bootstraps", "get", "demo", new_id(Prefix.WORKER_BOOTSTRAP))
    assert absent.returncode == 3
    assert f"next: bulkhead bootstraps list {cluster}" in absent.stderr

    # So that nobody looks for its node, and finds another health.
    bulkhead.ok("clusters", "suspend", "demo")
    workspace = bulkhead.environment["BULKHEAD_WORKSPACE"]
    machine = _add_machine(stack_home, workspace, cluster)
    try:
        header, row = bulkhead.ok("machines", "list", "--cluster", "demo").splitlines()
        assert header.split()[:4] == ["NAME", "CLUSTER", "STATE", "HEALTH"]
        assert header.split()[4:7] == ["SIZE", "PLACE", "CERTIFICATES"]
        assert row.split()[:5] == ["web-1", "demo", "ACTIVE", "not_ready,", "cordoned"]
        assert row.split()[5:8] == ["-", "-", "5h"]
        shown = bulkhead.ok("machines", "get", "web-1")
        assert "the network plugin is missing" in shown
        assert re.search(r"Health +not_ready for \d+[sm], cordoned\n", shown)
        assert "ends in 5h, renewed 3h ago" in shown
        assert bulkhead.json("machines", "rename", "web-1", "front")["name"] == "front"
        assert bulkhead.run("machines", "get", "web-1").returncode == 3
        operations = bulkhead.ok("operations", "list").splitlines()
        assert any(line.startswith("machine.cordon") and " front " in line for line in operations)
        kept = bulkhead.run("clusters", "delete", "demo", "--yes")
        assert kept.returncode == 5
        assert machine in kept.stderr
        unsure = bulkhead.run("machines", "delete", "front")
        assert unsure.returncode == 2
        assert "needs --yes" in unsure.stderr
        refused = bulkhead.run("machines", "delete", "front", "--yes")
        assert (refused.returncode, "delete with --force" in refused.stderr) == (5, True)
        assert "bulkhead machines delete front --force" in refused.stderr
        bulkhead.ok("machines", "delete", "front", "--yes", "--force")
        assert bulkhead.json("machines", "list") == []
    finally:
        stack = Stack(stack_home, EmbeddedSettings.model_construct(home=None), durable=False)
        with stack.administrator("bulkhead") as connection:
            connection.execute("DELETE FROM machines WHERE id = %s", (machine,))
