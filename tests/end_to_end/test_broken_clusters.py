"""Whatever a customer or a disk does to a cluster, it can still be resumed or at least deleted."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from infra.control_planes.processes import host_supervisor
from tests.end_to_end.stack import Body, Bulkhead
from tests.processes import suspended

REFUSES_EVERYTHING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "refuses-everything"},
    "webhooks": [
        {
            "name": "refuses.everything.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": {"service": {"namespace": "default", "name": "nobody", "path": "/"}},
            "rules": [
                {
                    "apiGroups": ["*"],
                    "apiVersions": ["*"],
                    "resources": ["*/*"],
                    "operations": ["CREATE", "UPDATE"],
                }
            ],
        }
    ],
}


def _ask(bulkhead: Bulkhead, cluster_id: str, verb: str) -> Body:
    etag = bulkhead.get(f"/clusters/{cluster_id}")["etag"]
    return bulkhead.persist("POST", f"/clusters/{cluster_id}:{verb}", headers={"If-Match": etag})


def test_a_webhook_that_refuses_everything_does_not_lock_its_owner_out(
    bulkhead: Bulkhead, tmp_path: Path
) -> None:
    created = bulkhead.end_of(bulkhead.create_cluster())
    cluster_id = created["owner_id"]
    kubeconfig = bulkhead.kubeconfig(cluster_id, tmp_path / "kubeconfig")
    manifest = tmp_path / "webhook.json"
    manifest.write_text(json.dumps(REFUSES_EVERYTHING))
    applied = bulkhead.kubectl(kubeconfig, "create", "-f", str(manifest))
    assert applied.returncode == 0, applied.stderr
    refused = bulkhead.kubectl(kubeconfig, "create", "configmap", "refused")
    assert refused.returncode != 0
    assert bulkhead.end_of(_ask(bulkhead, cluster_id, "suspend"))["state"] == "SUCCEEDED"
    resumed = bulkhead.end_of(_ask(bulkhead, cluster_id, "resume"))
    assert resumed["state"] == "SUCCEEDED", resumed["error"]
    assert bulkhead.delete_cluster(cluster_id)["state"] == "SUCCEEDED"


def test_a_cluster_whose_store_is_broken_can_be_deleted(bulkhead: Bulkhead) -> None:
    created = bulkhead.end_of(bulkhead.create_cluster())
    cluster_id = created["owner_id"]
    group = f"cp-{cluster_id[4:]}"
    data = bulkhead.stack.home.control_planes / group / "etcd" / "member"
    for file in [*data.glob("snap/db"), *data.glob("wal/*.wal")]:
        with file.open("r+b") as store:
            store.write(b"\xff" * 65536)
    suspending = _ask(bulkhead, cluster_id, "suspend")
    bulkhead.http.post(f"/operations/{suspending['id']}:cancel")
    etcd = host_supervisor(bulkhead.stack.control_planes).state(group).get("etcd")
    if etcd is not None and etcd.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(etcd.pid, signal.SIGKILL)
    deleted = bulkhead.delete_cluster(cluster_id)
    assert deleted["state"] == "SUCCEEDED", deleted["error"]
    assert bulkhead.control_planes() == {}


@contextlib.contextmanager
def _frozen(bulkhead: Bulkhead) -> Iterator[None]:
    server = psutil.Process(bulkhead.pid_of("postgresql"))
    # The server first: it makes no more children then, and those that end stay to be found.
    with suspended(server.pid), suspended(*[each.pid for each in server.children(recursive=True)]):
        yield


def test_a_database_that_is_frozen_is_answered_as_unavailable(bulkhead: Bulkhead) -> None:
    with _frozen(bulkhead):
        started = time.monotonic()
        answer = bulkhead.http.get("/clusters", timeout=httpx.Timeout(60))
        assert answer.status_code == 503
        assert answer.json()["errors"][0]["metadata"]["reason"] == "DEPENDENCY_UNAVAILABLE"
        assert time.monotonic() - started < 40  # the promise to whoever waits
    assert bulkhead.get("/clusters")["data"] == []
