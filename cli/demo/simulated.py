"""Simulated nodes, for a machine that boots no servers: kwok lets them look alive, nothing runs.

They are in the cluster only while the demo runs, because they need kwok for each heartbeat.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cli.client import JsonObject
from cli.demo.kubernetes import Kubectl
from cli.demo.stack import checkout
from cli.demo.story import Story
from cli.errors import CliError, ExitCode

LABEL: Final = "simulated"
LABELS: Final = {LABEL: "true"}

_ANNOTATION: Final = "kwok.x-k8s.io/node"
_STAGES: Final = Path(__file__).with_name("simulated-nodes.yaml")
_READY_SECONDS: Final = 60
_STOP_SECONDS: Final = 10.0


class SimulatedNodes:
    """Nodes that are labelled, annotated and tainted as simulated.

    Args:
        story: what is told.
        kubectl: with the rights of an administrator.
        directory: of the demo, with its kubeconfig.
        programs: where kwok is put; by default below the directory.
    """

    def __init__(
        self,
        story: Story,
        kubectl: Kubectl,
        directory: Path,
        *,
        programs: Path | None = None,
    ) -> None:
        self._programs = programs or directory / "programs"
        self._story = story
        self._kubectl = kubectl
        self._directory = directory

    @contextmanager
    def running(self, count: int, *, quietly: bool = False) -> Iterator[None]:
        """Have so many of them in the cluster for as long as the block runs.

        `quietly`: without the commands, which are told already.

        Raises:
            CliError: kwok cannot be had, or the nodes do not get ready.
        """
        program = self._kwok()
        try:
            with self._heartbeats(program):
                self._register(count, quietly=quietly)
                yield
        finally:
            self._remove()

    def _remove(self) -> None:
        """Remove every simulated node, also those that an ended run left."""
        self._kubectl.run(["delete", "nodes", "--selector", f"{LABEL}=true", "--ignore-not-found"])

    def _register(self, count: int, *, quietly: bool) -> None:
        nodes = [_node(number) for number in range(1, count + 1)]
        manifests = {"apiVersion": "v1", "kind": "List", "items": nodes}
        apply = self._kubectl.run if quietly else self._kubectl.show
        apply(["apply", "--server-side", "-f", "-"], json.dumps(manifests))
        with self._story.working(f"{count} simulated nodes are ready"):
            limit = f"--timeout={_READY_SECONDS}s"
            selected = ["node", "--selector", f"{LABEL}=true"]
            wait = ["wait", "--for=condition=Ready", *selected, limit]
            self._kubectl.run(wait, seconds=_READY_SECONDS * 2)
        if quietly:
            return
        self._story.output.note()
        self._kubectl.show(["get", "nodes", "--label-columns", LABEL])

    def _kwok(self) -> Path:
        command = [sys.executable, "-m", "infra.tools", "kwok", "--into", str(self._programs)]
        sys.stdout.flush()
        with self._story.timed("kwok is there"):
            made = subprocess.run(
                command,
                check=False,
                cwd=checkout(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # It says there what it builds and how long that takes.
                stderr=sys.stdout,
            )
        if made.returncode != 0:
            message = "kwok, which simulates nodes, cannot be had."
            raise CliError(message, next_commands=("python -m infra.tools kwok",))
        return self._programs / "kwok"

    @contextmanager
    def _heartbeats(self, program: Path) -> Iterator[None]:
        log = self._directory / "kwok.log"
        command: list[str | Path] = [
            *(program, "--kubeconfig", self._directory / "kubeconfig", "--config", _STAGES),
            *("--manage-all-nodes=false", f"--manage-nodes-with-label-selector={LABEL}=true"),
            "--node-lease-duration-seconds=40",
        ]
        # Where the demo is killed, it goes as well.
        if guard := shutil.which("setpriv"):
            command = [guard, "--pdeathsig", "TERM", *command]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
            ) as process,
        ):
            try:
                yield
            except CliError as error:
                if process.poll() is not None:
                    message = f"kwok ended with status {process.returncode}; see {log}."
                    raise CliError(message, ExitCode.FAILED) from error
                raise
            finally:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _node(number: int) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"simulated-{number}",
            "labels": {**LABELS, "kubernetes.io/hostname": f"simulated-{number}"},
            "annotations": {_ANNOTATION: "fake"},
        },
        # What shall really run must not land there, such as the cluster's DNS.
        "spec": {"taints": [{"key": LABEL, "value": "true", "effect": "NoSchedule"}]},
    }
