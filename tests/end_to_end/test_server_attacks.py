"""What somebody who is root on a server can do with what the server has: nothing elsewhere."""

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from domain.names import PORTS_PER_SLOT, api_server_port_of, tunnel_port_of
from infra.local_cloud import LocalServer
from tests.end_to_end.csr import csr, signing_request
from tests.end_to_end.intruder import TOKENS, Intruder, audited_denials
from tests.end_to_end.servers import Place, until
from tests.end_to_end.stack import Body

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_SERVING = "kubernetes.io/kubelet-serving"
_OF_USERS = "kubernetes.io/kube-apiserver-client"
# What kubectl says of 401.
_UNAUTHENTICATED = "You must be logged in to the server"
_DECIDED_WITHIN = 20.0
_TUNNEL_ENDS_WITHIN = 300.0


def _intruder(place: Place, name: str = "taken") -> tuple[Intruder, Body]:
    server = place.switch_on(name)
    machine = place.joined(server)
    return Intruder(place, server), machine


def _tunnel_is_ready(server: LocalServer, port: int = 8134) -> bool:
    asked = server.run(f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' 127.0.0.1:{port}/readyz")
    return asked.output == "200"


def _dial_tunnel(server: LocalServer, authority: str, host: str, port: int) -> bool:
    """Run a second agent with the server's token, and return whether a tunnel came of it."""
    server.run(f"cat >/run/other-ca.crt <<'END'\n{authority}\nEND")
    agent = (
        f"/opt/bulkhead/bin/konnectivity-agent --ca-cert=/run/other-ca.crt"
        f" --proxy-server-host={host} --proxy-server-port={port}"
        f" --service-account-token-path={TOKENS}/tunnel --agent-identifiers=ipv4={server.address}"
        " --admin-bind-address=127.0.0.1 --admin-server-port=9133"
        " --health-server-host=127.0.0.1 --health-server-port=9134"
    )
    # Asked to end, it would wait for its streams.
    unit = "systemd-run --quiet --collect --unit=other-agent --property=KillSignal=SIGKILL"
    started = server.run(f"{unit} {agent}")
    assert started.status == 0, started
    try:
        with contextlib.suppress(AssertionError):
            return until(lambda: _tunnel_is_ready(server, 9134) or None, 10, "a tunnel")
        return False
    finally:
        server.run("systemctl stop other-agent")


def _create(intruder: Intruder, manifest: Body) -> subprocess.CompletedProcess[str]:
    """Create an object as the node."""
    file = intruder.place.directory / f"{uuid4().hex}.json"
    file.write_text(json.dumps(manifest))
    return intruder.kubectl(intruder.as_node, "create", "-f", str(file))


def _slot_of(place: Place, cluster_id: str) -> int:
    with place.bulkhead.stack.administrator("bulkhead") as connection:
        row = connection.execute(
            "SELECT slot FROM clusters WHERE id = %s", (cluster_id,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_nodes_credentials_are_good_for_its_own_cluster_only(
    place: Place, tmp_path: Path
) -> None:
    intruder, machine = _intruder(place)
    bulkhead = place.bulkhead
    own = intruder.kubectl(intruder.as_node, "get", "node", machine["node_name"])
    assert own.returncode == 0, own.stderr
    created = bulkhead.end_of(bulkhead.create_cluster(name="other"))
    other = created["response"]["cluster_id"]
    kubeconfig = bulkhead.kubeconfig(other, tmp_path / "other")
    try:
        for user in (intruder.as_node, *map(intruder.as_token, intruder.tokens)):
            refused = intruder.kubectl(user, "get", "nodes", kubeconfig=kubeconfig)
            assert _UNAUTHENTICATED in refused.stderr, refused
        shown = bulkhead.kubectl(kubeconfig, "config", "view", "--raw", "-o", "json").stdout
        cluster = json.loads(shown)["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        first = bulkhead.stack.ports.control_planes
        host = str(bulkhead.stack.node_address)
        own_port = tunnel_port_of(first, _slot_of(place, place.cluster_id))
        assert _dial_tunnel(
            intruder.server, intruder.read("/etc/bulkhead/cluster-ca.crt"), host, own_port
        )
        other_port = tunnel_port_of(first, _slot_of(place, other))
        assert not _dial_tunnel(intruder.server, authority, host, other_port)
    finally:
        bulkhead.delete_cluster(other)


def test_the_tunnels_token_is_of_no_use_at_the_api_server(place: Place) -> None:
    intruder, _ = _intruder(place)
    refused = intruder.kubectl(intruder.as_token("tunnel"), "get", "nodes")
    assert _UNAUTHENTICATED in refused.stderr, refused
    for name in ("kube-proxy", "flannel"):
        user = intruder.as_token(name)
        assert intruder.kubectl(user, "get", "nodes").returncode == 0
        for asked in (("get", "secrets", "-A"), ("get", "configmaps", "-A"), ("get", "csr")):
            assert "Forbidden" in intruder.kubectl(user, *asked).stderr


def test_certificates_of_anybody_else_are_denied_and_audited(place: Place) -> None:
    intruder, machine = _intruder(place)
    address, own = str(intruder.server.address), machine["node_name"]
    other = f"mch-{uuid4().hex}"
    me, nodes = f"system:node:{own}", ["system:nodes"]
    mine = {"CN": [me], "O": nodes}
    others = {"CN": [f"system:node:{other}"], "O": nodes}
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - which is to be refused
    many = [f"n{number}.example" for number in range(600)]
    wanted = {
        "more-groups": (_CLIENT, signing_request({"CN": [me], "O": [*nodes, "customers"]})),
        "authority": (_CLIENT, signing_request(mine, authority=True)),
        "weak-key": (_CLIENT, signing_request(mine, key=weak)),
        "names": (_CLIENT, signing_request(mine, ["kubernetes.default"])),
        "huge": (_CLIENT, signing_request(mine, many)),
        "other-address": (_SERVING, signing_request(mine, [own, address, "10.96.0.1"])),
        "other-host": (_SERVING, signing_request(mine, [own, "kubernetes.default.svc"])),
        "user": (_OF_USERS, signing_request({"CN": ["somebody"], "O": ["customers"]})),
    }
    at_once = {
        # What Kubernetes itself refuses a node.
        "other-name": (_CLIENT, signing_request(others)),
        "other-server": (_SERVING, signing_request(others, [other])),
        "masters": (_OF_USERS, signing_request({"CN": ["me"], "O": ["system:masters"]})),
    }
    for name, (signer, request) in (wanted | at_once).items():
        made = _create(intruder, csr(name, signer, request))
        assert (made.returncode == 0) == (name in wanted), made
        assert name in wanted or "orbidden" in made.stderr, made

    def denied() -> bool | None:
        found = json.loads(place.kubectl("get", "csr", "-o", "json", *wanted))["items"]
        assert all("certificate" not in each["status"] for each in found)
        conditions = [
            [one["type"] for one in each["status"].get("conditions", [])] for each in found
        ]
        return conditions == [["Denied"]] * len(wanted) or None

    until(denied, _DECIDED_WITHIN, "denials")
    told = [
        each
        for each in audited_denials(place, "node.certificate.deny")
        if each["resource_id"] == machine["id"]
    ]
    assert {each["details"]["request"] for each in told} >= set(wanted)
    approved = intruder.kubectl(
        intruder.as_node, "auth", "can-i", "update", "certificatesigningrequests/approval"
    )
    assert approved.stdout.strip() == "no", approved


def test_a_revoked_server_that_does_not_cooperate_is_out(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    intruder, machine = _intruder(place)
    server, node = intruder.server, machine["node_name"]
    leaf = x509.load_pem_x509_certificate(intruder.certificate.encode())
    assert leaf.not_valid_after_utc.timestamp() - time.time() <= 3600
    assert _tunnel_is_ready(server)
    # Nothing of the platform's is obeyed any more; kubelet and tunnel go on.
    server.run("systemctl disable --now bulkhead-node.timer; rm /usr/local/sbin/bulkhead-node")
    deleting = place.ask("DELETE", machine["id"])
    place.bulkhead.wait_for_step(deleting, "revoke_credentials")
    since = time.monotonic()
    until(lambda: None if _tunnel_is_ready(server) else True, _TUNNEL_ENDS_WITHIN, "its end")
    record_property("tunnel_ended_after_seconds", round(time.monotonic() - since, 1))
    deleted = place.bulkhead.end_of(deleting)
    assert deleted["state"] == "SUCCEEDED", deleted
    key = ec.generate_private_key(ec.SECP256R1())
    csr = signing_request({"CN": ["bulkhead-node"]}, key=key)
    report = {"phase": "running", "hostname": server.name, "addresses": []}
    for path, body in (("resume", {"csr": csr}), ("tokens", {}), ("report", report)):
        answer = intruder.ask_platform(f"/nodes/self:{path}", body)
        assert answer.status_code == 401, answer.text
    _is_shut_out(intruder, node)
    # Its kubelet would make its node again as long as its certificate lasts.
    assert server.run("systemctl is-active bulkhead-kubelet").status == 0
    server.run("systemctl restart bulkhead-kubelet bulkhead-tunnel")
    seen = 0
    for _ in range(20):
        seen += node in place.kubectl("get", "nodes", "-o", "name")
        assert not _tunnel_is_ready(server)
        time.sleep(1)
    assert seen <= 10, "a node that should be removed each time stays"
    until(lambda: None if node in place.kubectl("get", "nodes", "-o", "name") else True, 10, "end")


def _is_shut_out(intruder: Intruder, node: str) -> None:
    """Nothing that the server has gets it anything new."""
    place = intruder.place
    for name in intruder.tokens:
        refused = intruder.kubectl(intruder.as_token(name), "get", "nodes")
        assert _UNAUTHENTICATED in refused.stderr, (name, refused)
    request = signing_request({"CN": [f"system:node:{node}"], "O": ["system:nodes"]})
    made = _create(intruder, csr("again", _CLIENT, request))
    assert made.returncode == 0, made.stderr

    def denied() -> bool | None:
        found = json.loads(place.kubectl("get", "csr", "again", "-o", "json"))["status"]
        assert "certificate" not in found
        return [one["type"] for one in found.get("conditions", [])] == ["Denied"] or None

    until(denied, _DECIDED_WITHIN, "the denial")


def test_a_node_reads_and_changes_nothing_of_another_node(place: Place) -> None:
    intruder, machine = _intruder(place)
    owner = place.joined(place.switch_on("owner"))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary"}}
    container = {"name": "pause", "image": place.demo_image, "args": ["pause"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "owner"},
        "spec": {
            "nodeName": owner["node_name"],
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "canary", "secret": {"secretName": "canary"}}],
        },
    }
    place.apply(secret, pod)
    place.kubectl("wait", "pod/owner", "--for=condition=Ready", "--timeout=60s")
    taint = "a=b:NoExecute"
    planted = {**pod, "metadata": {"name": "planted"}}
    refused = (
        ("get", "secret", "canary"),
        ("get", "secrets", "--all-namespaces"),
        ("label", "node", owner["node_name"], "stolen=yes"),
        ("label", "node", machine["node_name"], "node-restriction.kubernetes.io/trusted=yes"),
        ("taint", "node", owner["node_name"], taint),
        ("delete", "node", owner["node_name"]),
        ("delete", "pod", "owner"),
        ("create", "token", "default"),
        ("create", "token", "konnectivity-agent", "--namespace=kube-system"),
        ("create", "clusterrolebinding", "root", "--clusterrole=cluster-admin", "--user=me"),
        ("exec", "owner", "--", "/agnhost", "help"),
    )
    for arguments in refused:
        answer = intruder.kubectl(intruder.as_node, *arguments)
        assert answer.returncode != 0, arguments
        assert "orbidden" in answer.stderr or "not allowed" in answer.stderr, answer
    assert "orbidden" in _create(intruder, planted).stderr
    place.kubectl("delete", "pod/owner", "secret/canary")


def test_a_server_reaches_nothing_of_the_platform_but_what_is_meant_for_it(place: Place) -> None:
    intruder, _ = _intruder(place)
    stack = place.bulkhead.stack
    ports = stack.ports
    slot = _slot_of(place, place.cluster_id)
    first, last = ports.api, ports.control_planes + PORTS_PER_SLOT * 8
    listening = {
        each.laddr.port
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and first <= each.laddr.port < last
    }
    host = str(stack.node_address)
    gateway = str(place.network.gateway)
    others = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family.name == "AF_INET" and not address.address.startswith("127.")
    ]
    assert {ports.postgresql, ports.openbao, ports.temporal, ports.api} <= listening
    reached = intruder.reachable(sorted({host, gateway, *others}), sorted(listening))
    assert reached == {
        (host, port)
        for port in (
            ports.api_https,
            ports.gateway,
            ports.registry,
            api_server_port_of(ports.control_planes, slot),
            tunnel_port_of(ports.control_planes, slot),
        )
    }


@contextlib.contextmanager
def _arguments_seen() -> Iterator[set[bytes]]:
    """Collect the arguments and environments of everything that runs meanwhile, as root sees it."""
    seen: set[bytes] = set()
    ended = Event()

    def look() -> None:
        while not ended.wait(0.005):
            for directory in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    seen.add((directory / "cmdline").read_bytes())

    thread = Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_no_secret_of_a_server_is_in_arguments_or_logs(place: Place) -> None:
    bootstrap = place.new_bootstrap()
    with _arguments_seen() as seen:
        server = place.switch_on("discreet", bootstrap)
        place.joined(server)
        server.run("systemctl start bulkhead-node.service")
    intruder = Intruder(place, server)
    serving = "/var/lib/kubelet/pki/kubelet-server-current.pem"
    # It is asked for when the kubelet runs, and approved with the next look.
    until(lambda: server.run(f"test -s {serving}").status == 0 or None, 30, "a serving key")
    renewed = intruder.read(serving)
    keys = [intruder.key, renewed[renewed.index("-----BEGIN EC PRIVATE") :]]
    secrets = [
        bootstrap["token"],
        *intruder.tokens.values(),
        *(key.splitlines()[1] for key in keys),
    ]
    environments = server.run("cat /proc/[0-9]*/environ | tr '\\0' '\\n'").output
    logs = server.run("journalctl --no-pager; find /var/log -name '*.log' -exec cat {} +").output
    console = server.console.read_text(errors="replace")
    home = place.bulkhead.stack.home
    kept = [
        file.read_bytes()
        for pattern in ("**/logs/*", "control-planes/*/audit/*")
        for file in home.directory.glob(pattern)
        if file.is_file()
    ]
    assert "bulkhead" in logs
    assert kept
    assert any(b"kubelet" in each for each in seen)
    for secret in secrets:
        assert len(secret) > 30
        for place_of_it in (logs, console, environments):
            assert secret not in place_of_it
        assert not any(secret.encode() in each for each in [*seen, *kept])
