"""Secrets are in OpenBao, in their own files, and nowhere else."""

import asyncio
import base64
import json
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest

from infra.local_cloud import LocalServer
from tests.end_to_end.canaries import (
    OWN_FILES,
    Canaries,
    content_of,
    files_below,
    histories,
    other_files,
    processes_seen,
)
from tests.end_to_end.servers import Place
from tests.end_to_end.stack import Bulkhead
from tests.histories import texts_of
from tests.processes import core_limits, processes_told

# 32 random bytes in base64, the only thing of this length in the file.
_ENCRYPTION_KEY = re.compile(rb"([A-Za-z0-9+/]{43}=)")


def _planted_in_files(home: Path) -> dict[str, bytes]:
    """Return the middle of each secret file: a line of a key, or the whole short value."""
    planted = {}
    for pattern in OWN_FILES:
        for path in home.glob(pattern):
            content = path.read_bytes().strip()
            if path.suffix in {".crt", ".pub"} or not content:
                continue
            if b"PRIVATE KEY" in content:
                content = content.splitlines()[2]
            elif path.name == "owner.env":
                content = content.split(b"BULKHEAD_API_TOKEN=")[1].split()[0].strip(b"'\"")
            elif path.name == "encryption.yaml":
                (content,) = _ENCRYPTION_KEY.findall(content)
            planted[str(path.relative_to(home))] = content
    return planted


def _use_secrets(bulkhead: Bulkhead, canaries: Canaries) -> bytes:
    """Do with secrets what people and their mistakes do; return all answers but the plaintext."""
    created = bulkhead.persist(
        "POST",
        "/secrets",
        json={
            "name": f"planted-{uuid4().hex}",
            "kind": "webhook_signing",
            "value": canaries.new("the first version"),
        },
        headers={"idempotency-key": uuid4().hex},
    )
    path = f"/secrets/{created['id']}"
    added = {"value": canaries.new("another version"), "comment": "planted"}
    told = [created, bulkhead.persist("POST", f"{path}/versions", json=added)]
    read = bulkhead.persist("POST", f"{path}/versions/latest:access")
    assert read["value"].encode() == canaries["another version"]
    wrapped = bulkhead.persist(
        "POST", f"{path}/versions/current:access", json={"wrap_ttl_seconds": 60}
    )
    canaries["a wrapping token"] = wrapped["wrapping_token"].encode()
    rotation = {"rotator": "webhook_signing_key", "settings": {}, "interval_seconds": 86_400}
    told.append(bulkhead.persist("PUT", f"{path}/rotation", json=rotation))
    rotated = bulkhead.end_of(bulkhead.persist("POST", f"{path}:rotate"))
    assert rotated["state"] == "SUCCEEDED", rotated["error"]
    made = bulkhead.persist("POST", f"{path}/versions/current:access")["value"]
    canaries["what a rotation made"] = made.encode()
    wrong: list[tuple[str, object]] = [
        ("/secrets", {"name": "x", "kind": "generic", "value": [canaries.new("a list")]}),
        ("/secrets", {"name": "x", "kind": canaries.new("a kind"), "value": "x"}),
        ("/secrets", {"kind": "generic", "value": canaries.new("without a name")}),
        (f"{path}/versions", {"value": canaries.new("too long") * 5000}),
        (f"{path}/versions", {"value": canaries.new("no base64"), "value_encoding": "base64"}),
        (f"{path}/versions", canaries.new("no object")),
        ("/secrets/unwrap", {"token": canaries.new("no token")}),
    ]
    refused = [bulkhead.http.post(where, json=body) for where, body in wrong]
    assert all(answer.is_client_error for answer in refused), refused
    history = [bulkhead.get(path), bulkhead.get(f"{path}/versions"), bulkhead.get("/audit_events")]
    told += [rotated, *history]
    return b"\n".join([json.dumps(told).encode(), *(answer.content for answer in refused)])


def test_no_secret_is_found_outside_its_place(bulkhead: Bulkhead, tmp_path: Path) -> None:
    canaries = Canaries()
    created = bulkhead.end_of(bulkhead.create_cluster())
    cluster_id = created["owner_id"]
    kubeconfig = bulkhead.kubeconfig(cluster_id, tmp_path / "kubeconfig")
    value = f"--from-literal=value={canaries.new('a Secret of the cluster')}"
    made = bulkhead.kubectl(kubeconfig, "create", "secret", "generic", "planted", value)
    assert made.returncode == 0, made.stderr
    token = bulkhead.persist("POST", "/api_tokens", json={"name": "planted"})["token"]
    assert bulkhead.http.get("/clusters", headers={"Authorization": f"Bearer {token}x"}).is_error
    bulkhead.http.get(f"/clusters/{cluster_id}", headers={"Authorization": f"Bearer {token}"})

    answers = _use_secrets(bulkhead, canaries)
    home = bulkhead.stack.home.directory
    canaries.update(_planted_in_files(home))
    kinds = {name.rsplit("/", 1)[-1] for name in canaries}
    assert {"service-account.key", "node-signer.key", "encryption.yaml", "owner.env"} <= kinds
    canaries["api token"] = token.encode()
    canaries["kubeconfig"] = next(
        line.split(b": ")[1].strip()
        for line in kubeconfig.read_bytes().splitlines()
        if b"client-key-data" in line
    )

    # Sealed or not, a payload holds no secret.
    kept, inside = asyncio.run(histories(bulkhead))
    assert cluster_id.encode() in inside
    places = {
        "histories": kept,
        "payloads": inside,
        "processes": processes_seen(),
        "errors": answers,
    }
    places |= other_files(home)
    assert len(places) > 50
    # kubectl is ours here and got the canary as an argument; it has ended, so nothing is excused.
    assert canaries.found_in(places) == []
    bulkhead.delete_cluster(cluster_id)


# Of a server: its own key, the one that its kubelet serves with, and what it gets from the platform
# each hour. Its first client certificate is its own key's.
SERVERS_FILES = (
    "/etc/bulkhead/identity.key",
    "/var/lib/kubelet/pki/kubelet-server-current.pem",
    *(f"/var/lib/bulkhead/tokens/{name}" for name in ("tunnel", "kube-proxy", "flannel")),
)


@contextmanager
def _arguments_meanwhile() -> Iterator[set[bytes]]:
    """Collect what the process lists of platform and servers show as long as this lasts."""
    seen: set[bytes] = set()
    over = Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.update(processes_seen().splitlines())

    looking = Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def _planted_on_server(server: LocalServer) -> dict[str, bytes]:
    """Return of each secret file of a server a part that stands in no other one."""
    planted = {}
    for path in SERVERS_FILES:
        read = server.run(f"cat {path}")
        assert read.status == 0, (path, read.output)
        if "PRIVATE KEY" in read.output:
            # The key of a curve is in the first lines, the second of which holds its public half.
            part = read.output.split("PRIVATE KEY-----")[1].split()[0]
        else:
            part = read.output.strip().rsplit(".", 1)[1]
        assert len(part) > 40, path
        planted[path] = part.encode()
    return planted


def _refused_servers(place: Place, canaries: Canaries, used: str) -> bytes:
    """Try what strangers and mistakes try at the routes of servers; return the answers."""
    http = place.bulkhead.http
    good = place.new_bootstrap()["token"]
    canaries["an unused bootstrap token"] = good.encode()
    body = {
        "csr": base64.b64encode(canaries.new("no request").encode()).decode(),
        "hostname": "stranger",
        "operating_system": "linux",
        "architecture": "amd64",
        "addresses": ["10.0.0.7"],
    }
    signed = {
        "bulkhead-key": canaries.new("no key"),
        "bulkhead-time": canaries.new("no time"),
        "bulkhead-signature": canaries.new("no signature"),
    }
    answers = [
        *(
            http.post("/nodes", json=each, headers={"authorization": f"Bearer {token}"})
            for token in (used, f"{good}x", canaries.new("no token of a server"), good)
            for each in (body, body | {"hostname": [token]}, {"csr": token})
        ),
        *(
            http.post(f"/nodes/self:{verb}", json={"csr": signed["bulkhead-key"]}, headers=signed)
            for verb in ("report", "resume", "tokens")
        ),
        http.get("/clusters", headers={"authorization": f"Bearer {good}"}),
    ]
    assert all(answer.is_client_error for answer in answers), answers
    return b"\n".join(answer.content for answer in answers)


@pytest.mark.full
def test_no_secret_of_a_server_is_found_outside_its_place(place: Place) -> None:
    canaries, bulkhead = Canaries(), place.bulkhead
    bootstrap = place.new_bootstrap()
    with _arguments_meanwhile() as seen:
        server = place.switch_on("planted", bootstrap)
        machine = place.joined(server)
    canaries["a bootstrap token"] = bootstrap["token"].encode()
    canaries |= _planted_on_server(server)
    answers = _refused_servers(place, canaries, bootstrap["token"])
    told = [bulkhead.get(path) for path in ("/audit_events", f"/machines/{machine['id']}")]
    told.append(bulkhead.get(f"/clusters/{place.cluster_id}/worker_bootstraps"))
    kept, inside = asyncio.run(histories(bulkhead))
    assert machine["id"].encode() in inside
    home = bulkhead.stack.home.directory
    places = {
        "histories": kept,
        "payloads": inside,
        "processes while it joined": b"\n".join(seen),
        "processes": processes_seen(),
        "errors": answers,
        "answers": json.dumps(told).encode(),
        "the server's journal": server.run("journalctl --no-pager").output.encode(),
        **other_files(home),
    }
    assert machine["id"].encode() in places["answers"]
    assert canaries.found_in(places) == []


def test_what_temporal_keeps_tells_no_more_than_ids(bulkhead: Bulkhead) -> None:
    told = Canaries()
    created = bulkhead.end_of(bulkhead.create_cluster(name=told.new("the cluster's name")))
    with bulkhead.stack.administrator("bulkhead") as administrator:
        told["who asked"] = administrator.execute("SELECT id FROM users").fetchall()[0][0].encode()
    told["an input's field"] = b'"principal_id"'
    kept, inside = asyncio.run(histories(bulkhead))
    assert told["who asked"] in inside
    files = files_below(bulkhead.stack.home.temporal)
    places = {"histories": kept, **{path.name: content_of(path) for path in files}}
    assert any(created["id"].encode() in content for content in places.values())
    assert told.found_in(places) == []
    # Temporal's own CLI reads them through the codec server, with a token of ours.
    workflow_id = f"cluster/{created['owner_id']}/create/{created['id']}"
    shown = json.loads(_shown_by_cli(bulkhead, workflow_id))
    assert any(told["who asked"] in text for text in texts_of(shown))
    bulkhead.delete_cluster(created["owner_id"])


def _shown_by_cli(bulkhead: Bulkhead, workflow_id: str) -> bytes:
    environment = {
        "TEMPORAL_ADDRESS": bulkhead.stack.temporal.address,
        "TEMPORAL_CODEC_ENDPOINT": f"{bulkhead.stack.api.address}/codec",
        "TEMPORAL_CODEC_AUTH": bulkhead.http.headers["authorization"],
    }
    return subprocess.run(
        [
            Path(sysconfig.get_path("scripts"), "temporal"),
            *("workflow", "show", "--output=json", f"--workflow-id={workflow_id}"),
        ],
        env=environment,
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout


def test_nothing_of_a_stack_dumps_core(bulkhead: Bulkhead) -> None:
    created = bulkhead.end_of(bulkhead.create_cluster())
    limits = {}
    for pid in processes_told(str(bulkhead.stack.home.directory)):
        # A server of the database's that ends in between.
        with suppress(FileNotFoundError, ProcessLookupError):
            limits[Path(f"/proc/{pid}/comm").read_text().strip()] = core_limits(pid)
    assert {"postgres", "temporal", "bao", "kube-apiserver", "etcd"} <= set(limits)
    assert set(limits.values()) == {("0", "0")}
    bulkhead.delete_cluster(created["owner_id"])
