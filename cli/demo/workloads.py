"""A Deployment with a Service on the cluster's nodes, and what its users would do with it."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cli.client import JsonObject
from cli.demo.kubernetes import Kubectl
from cli.demo.story import Story
from cli.errors import CliError, ExitCode

NAME: Final = "hello"
REPLICAS: Final = 2

_ADDRESS: Final = f"{NAME}.default.svc.cluster.local"
_PORT: Final = 8080
_LABELS: Final = {"app": NAME}
_ROLLOUT_SECONDS: Final = 180
_ASKED: Final = 10
# A Service is known on a node a moment after its pods are ready.
_ANSWER_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5
_LOG_LINES: Final = 3


class Workload:
    """The Deployment `hello`: web servers, each of which answers with its own name."""

    def __init__(self, story: Story, kubectl: Kubectl) -> None:
        self._story = story
        self._kubectl = kubectl

    def deploy(self, image: str, *, only_on: dict[str, str] | None = None) -> None:
        """Apply it, so that new pods are spread over the nodes, and wait until they are ready.

        Args:
            image: the reference of the demo's image.
            only_on: the labels of the nodes that may run it, whose taints it then tolerates.

        Raises:
            CliError: the pods do not get ready.
        """
        self._story.output.note(("image: ", "dim"), image, copied=True)
        manifests = {"apiVersion": "v1", "kind": "List"}
        items = [_deployment(image, only_on or {}), _service()]
        self._kubectl.show(
            ["apply", "--server-side", "--force-conflicts", "-f", "-"],
            json.dumps({**manifests, "items": items}),
        )
        with self._story.working(f"Deployment {NAME}: {REPLICAS} replicas are ready"):
            self.wait()
        self.show_pods()

    def remove(self) -> None:
        """Remove Deployment and Service."""
        for resource in ("deployment", "service"):
            self._kubectl.run(["delete", resource, NAME, "--ignore-not-found"])

    def wait(self) -> None:
        """Wait until all replicas are ready, of the newest version, and no others are left.

        Raises:
            CliError: they do not get ready.
        """
        limit = f"--timeout={_ROLLOUT_SECONDS}s"
        status = ["rollout", "status", f"deployment/{NAME}", limit]
        self._kubectl.run(status, seconds=_ROLLOUT_SECONDS + _PAUSE_SECONDS * 10)
        deadline = time.monotonic() + _ROLLOUT_SECONDS
        while len(self._pods()) > REPLICAS and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)

    def show_pods(self) -> None:
        """List the pods with the node that each is on."""
        columns = "POD:.metadata.name,STATUS:.status.phase,NODE:.spec.nodeName"
        selector = ["--selector", f"app={NAME}", "-o", f"custom-columns={columns}"]
        self._kubectl.show(["get", "pods", *selector])

    def nodes(self) -> set[str]:
        """Return the nodes that its pods are on."""
        return {pod["spec"]["nodeName"] for pod in self._pods()}

    def look_inside(self) -> None:
        """Reach the Service by its DNS name from a pod of it, and read a pod's log.

        Raises:
            CliError: something of that does not work.
        """
        self._story.output.note()
        with self._story.working("Service reached by its DNS name, kubectl exec"):
            self._until_answered(["exec", f"deployment/{NAME}", "--", *_connect()])
        self._kubectl.show(["exec", f"deployment/{NAME}", "--", *_connect()])
        self._story.done(f"A pod finds {_ADDRESS} and connects to it (kubectl exec)")
        with self._story.timed(f"Service asked {_ASKED} times"):
            self.ask()
        self._story.output.note()
        with self._story.timed("kubectl logs"):
            self._kubectl.show(["logs", f"deployment/{NAME}", f"--tail={_LOG_LINES}"])

    def ask(self) -> set[str]:
        """Let a pod ask the Service by its DNS name; return the names of the pods that answered.

        Raises:
            CliError: it does not answer.
        """
        query = f"host={_ADDRESS}&port=80&protocol=http&request=hostname&tries={_ASKED}"
        service = f"/api/v1/namespaces/default/services/{NAME}:80/proxy"
        printed = self._until_answered(["get", "--raw", f"{service}/dial?{query}"])
        answers: list[str] = json.loads(printed).get("responses") or []
        if not answers:
            message = f"The Service {NAME} does not answer: {printed[:200]}"
            raise CliError(message, ExitCode.FAILED)
        names = sorted(set(answers))
        asked = f"A pod asks http://{_ADDRESS}/hostname {_ASKED} times"
        self._story.done(f"{asked}: {', '.join(names)} answered")
        return set(names)

    def _until_answered(self, arguments: Sequence[str]) -> str:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return self._kubectl.run(arguments)
            except CliError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _pods(self) -> list[JsonObject]:
        printed = self._kubectl.run(["get", "pods", "--selector", f"app={NAME}", "-o", "json"])
        pods: list[JsonObject] = json.loads(printed)["items"]
        return pods


def _connect() -> tuple[str, ...]:
    return ("/agnhost", "connect", "--timeout=5s", f"{_ADDRESS}:80")


def _deployment(image: str, only_on: dict[str, str]) -> JsonObject:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": _LABELS},
        # A node that is being drained is no place to spread to,
        "nodeTaintsPolicy": "Honor",
        # nor do the pods count that a new version is about to replace.
        "matchLabelKeys": ["pod-template-hash"],
    }
    container = {
        "name": NAME,
        "image": image,
        "args": ["netexec", f"--http-port={_PORT}"],
        "ports": [{"containerPort": _PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": _PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    # Pods stay where they are when a node comes; a new version spreads them again.
    annotations = {"bulkhead/demo-run": datetime.now(UTC).isoformat(timespec="seconds")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS, "annotations": annotations},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 1,
                    "topologySpreadConstraints": [spread],
                    "containers": [container],
                    "nodeSelector": only_on,
                    "tolerations": [
                        {"key": key, "value": value, "effect": "NoSchedule"}
                        for key, value in only_on.items()
                    ],
                },
            },
        },
    }


def _service() -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {"selector": _LABELS, "ports": [{"port": 80, "targetPort": _PORT}]},
    }
