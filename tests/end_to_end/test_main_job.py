"""The main job, from outside: one call, one Kubernetes cluster, and nothing left at its end."""

from pathlib import Path
from threading import Thread
from uuid import uuid4

from tests.end_to_end.stack import Body, Bulkhead


def test_a_cluster_is_created_used_suspended_resumed_and_deleted(
    bulkhead: Bulkhead, tmp_path: Path
) -> None:
    created = bulkhead.end_of(bulkhead.create_cluster())
    assert created["state"] == "SUCCEEDED", created["error"]
    assert [step["status"] for step in created["steps"]] == ["completed"] * len(created["steps"])
    cluster_id = created["response"]["cluster_id"]
    kubeconfig = bulkhead.kubeconfig(cluster_id, tmp_path / "kubeconfig")
    assert "kube-system" in bulkhead.kubectl(kubeconfig, "get", "namespaces").stdout
    made = bulkhead.kubectl(kubeconfig, "create", "configmap", "kept", "--from-literal=a=b")
    assert made.returncode == 0, made.stderr

    for verb, state in (("suspend", "suspended"), ("resume", "active")):
        etag = bulkhead.get(f"/clusters/{cluster_id}")["etag"]
        operation = bulkhead.persist(
            "POST", f"/clusters/{cluster_id}:{verb}", headers={"If-Match": etag}
        )
        assert bulkhead.end_of(operation)["state"] == "SUCCEEDED"
        assert bulkhead.get(f"/clusters/{cluster_id}")["state"] == state

    kept = bulkhead.kubectl(kubeconfig, "get", "configmap", "kept", "-o", "jsonpath={.data.a}")
    assert kept.stdout == "b", kept.stderr
    assert bulkhead.delete_cluster(cluster_id)["state"] == "SUCCEEDED"
    assert bulkhead.http.get(f"/clusters/{cluster_id}").status_code == 404
    assert not bulkhead.kubectl(kubeconfig, "get", "namespaces").stdout


def test_two_clusters_refuse_each_others_administrators(bulkhead: Bulkhead, tmp_path: Path) -> None:
    first, second = (
        bulkhead.end_of(operation)["response"]["cluster_id"]
        for operation in [bulkhead.create_cluster(), bulkhead.create_cluster()]
    )
    try:
        mine = bulkhead.kubeconfig(first, tmp_path / "first")
        theirs = bulkhead.kubeconfig(second, tmp_path / "second")
        server = bulkhead.kubectl(
            theirs, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"
        ).stdout
        foreign = bulkhead.kubectl(
            mine, f"--server={server}", "--insecure-skip-tls-verify", "get", "namespaces"
        )
        assert foreign.returncode != 0
        assert "Unauthorized" in foreign.stderr or "logged in" in foreign.stderr
        assert bulkhead.kubectl(mine, "get", "namespaces").returncode == 0
    finally:
        bulkhead.delete_cluster(first)
        bulkhead.delete_cluster(second)


def test_two_creates_at_once_with_one_key_make_one_cluster(bulkhead: Bulkhead) -> None:
    request = {"name": "once", "region_id": bulkhead.new_region()}
    headers = {"Idempotency-Key": uuid4().hex}
    answers: list[Body] = []

    def create() -> None:
        answers.append(bulkhead.persist("POST", "/clusters", json=request, headers=headers))

    threads = [Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["id"] for answer in answers}) == 1
    ended = bulkhead.end_of(answers[0])
    assert ended["state"] == "SUCCEEDED"
    cluster_id = ended["response"]["cluster_id"]
    named = [each for each in bulkhead.get("/clusters")["data"] if each["name"] == "once"]
    assert [each["id"] for each in named] == [cluster_id]
    bulkhead.delete_cluster(cluster_id)


def test_deleting_a_cluster_that_is_being_created_leaves_nothing(bulkhead: Bulkhead) -> None:
    for step in ("ensure_authorities", "start_components", "wait_until_ready"):
        creating = bulkhead.create_cluster()
        bulkhead.wait_for_step(creating, step)
        deleted = bulkhead.delete_cluster(creating["owner_id"])
        assert deleted["state"] == "SUCCEEDED", deleted["error"]
        assert bulkhead.end_of(creating)["state"] in {"CANCELLED", "SUCCEEDED"}
        assert bulkhead.http.get(f"/clusters/{creating['owner_id']}").status_code == 404
        assert bulkhead.control_planes() == {}
