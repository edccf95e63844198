"""What a customer runs on the nodes of a cluster, and how it is reached from outside."""

import contextlib
import subprocess
from collections.abc import Iterator

import httpx

from tests.end_to_end.servers import Place, until
from tests.end_to_end.stack import Body

NAME = "web"
_LABELS = {"app": NAME}
_ROLLS_OUT_WITHIN = "180s"


def deployment(image: str, replicas: int = 2) -> Body:
    """Return a web server that tells its host's name, spread over nodes."""
    container = {
        "name": NAME,
        "image": image,
        "args": ["netexec", "--http-port=8080"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _LABELS},
    }
    pod = {
        "containers": [container],
        "topologySpreadConstraints": [spread],
        "terminationGracePeriodSeconds": 1,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def service() -> Body:
    """Return the Service of the web server."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        "spec": {"selector": _LABELS, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def run_workload(place: Place, replicas: int = 2) -> None:
    """Have the web server and its Service, and wait until it runs."""
    place.apply(deployment(place.demo_image, replicas), service())
    await_rollout(place)


def await_rollout(place: Place, name: str = NAME, namespace: str = "default") -> None:
    """Wait until all of a Deployment's pods are ready."""
    limit = f"--timeout={_ROLLS_OUT_WITHIN}"
    place.kubectl("rollout", "status", f"deployment/{name}", f"--namespace={namespace}", limit)


def pods_by_node(place: Place) -> dict[str, list[str]]:
    """Return the running pods of the web server by the node that they are on."""
    columns = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{'\\n'}{end}"
    listed = place.kubectl(
        "get", "pods", f"--selector=app={NAME}", "-o", columns,
        "--field-selector=status.phase=Running",
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        node, pod = line.split()
        found.setdefault(node, []).append(pod)
    return found


def check_pod(place: Place, pod: str) -> None:
    """Look into one pod: logs, exec, Services by their names, and a port-forward.

    Raises:
        AssertionError: one of them does not work.
    """
    assert "http server" in place.kubectl("logs", pod).lower()
    assert place.kubectl("exec", pod, "--", "/agnhost", "help").strip()
    for target in (f"{NAME}.default.svc.cluster.local:80", f"{NAME}:80"):
        _await_connection(place, pod, target)
    with port_forward(place, f"pod/{pod}", 8080) as url:
        assert httpx.get(f"{url}/hostname", timeout=10).text == pod


def _await_connection(place: Place, pod: str, target: str) -> None:
    """Wait until a pod can connect: kube-proxy writes the rules of a ready pod a moment later."""
    connect = ("exec", pod, "--", "/agnhost", "connect", target, "--timeout=5s")

    def connects() -> bool | None:
        return place.bulkhead.kubectl(place.kubeconfig, *connect).returncode == 0 or None

    until(connects, 60, f"a connection from {pod} to {target}")


@contextlib.contextmanager
def port_forward(place: Place, target: str, port: int, namespace: str = "default") -> Iterator[str]:
    """Forward a port of a pod to this machine and return its URL here."""
    arguments = [
        f"--namespace={namespace}",
        "port-forward",
        target,
        f":{port}",
        "--address=127.0.0.1",
    ]
    with kubectl_in_background(place, *arguments) as running:
        assert running.stdout is not None
        line = running.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 8080
        assert "127.0.0.1:" in line, line
        yield f"http://127.0.0.1:{line.split('127.0.0.1:')[1].split()[0]}"


@contextlib.contextmanager
def kubectl_in_background(place: Place, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run kubectl, and end it; its output and errors can be read together."""
    program = place.bulkhead.stack.home.programs / "kubectl"
    with subprocess.Popen(
        [program, f"--kubeconfig={place.kubeconfig}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()
