"""What the demo does inside the cluster, with kubectl, as any user of it would."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cli.errors import CliError, ExitCode
from cli.output import Output
from cli.text import clean

CONFIG_MAP = "bulkhead-demo"
_KEY = "written"

# kubectl's own limit is none at all.
_TIMEOUT_SECONDS = 60.0


def find_kubectl(home: Path) -> Path:
    """Return the stack's own kubectl, or the one on PATH.

    Raises:
        CliError: there is none.
    """
    own = home / "programs" / "kubectl"
    if own.exists():
        return own
    found = shutil.which("kubectl")
    if found is None:
        message = "There is no kubectl, neither the stack's own nor on PATH."
        raise CliError(message, next_commands=("python -m infra.tools",))
    return Path(found)


class Kubectl:
    """kubectl with one kubeconfig; shows what it runs and what that prints."""

    def __init__(self, program: Path, kubeconfig: Path, output: Output) -> None:
        self._program = program
        self._kubeconfig = kubeconfig
        self._output = output

    def show_namespaces(self) -> None:
        """List the cluster's namespaces.

        Raises:
            CliError: the cluster's API server refuses or does not answer.
        """
        self._output.note()
        self.show(["get", "namespaces"])

    def write_and_read_config_map(self) -> None:
        """Write a ConfigMap and read it back; say what a run before had written.

        Raises:
            CliError: it cannot be written, or reads differently.
        """
        before = self._read()
        self._output.note()
        if before:
            self._output.note(f"The run before wrote {CONFIG_MAP} at {clean(before)}; still there.")
        value = datetime.now(UTC).isoformat(timespec="milliseconds")
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": "default"},
            "data": {_KEY: value},
        }
        self.show(["apply", "--server-side", "-f", "-"], stdin=json.dumps(manifest))
        columns = f"custom-columns=NAME:.metadata.name,WRITTEN:.data.{_KEY}"
        self.show(["get", "configmap", CONFIG_MAP, "-o", columns])
        if self._read() != value:
            message = f"The ConfigMap {CONFIG_MAP} reads differently from what was written."
            raise CliError(message)

    def _read(self) -> str:
        path = f"jsonpath={{.data.{_KEY}}}"
        return self.run(["get", "configmap", CONFIG_MAP, "--ignore-not-found", "-o", path])

    def show(
        self, arguments: Sequence[str], stdin: str = "", *, seconds: float = _TIMEOUT_SECONDS
    ) -> str:
        """Show a command, run it, show what it printed, and return that.

        Raises:
            CliError: it failed, or took longer than these seconds.
        """
        self._output.note(("$ ", "dim"), ("kubectl " + " ".join(arguments), "bold"), copied=True)
        printed = self.run(arguments, stdin, seconds=seconds)
        for line in printed.splitlines():
            self._output.note(f"  {line}", copied=True)
        return printed

    def run(
        self, arguments: Sequence[str], stdin: str = "", *, seconds: float = _TIMEOUT_SECONDS
    ) -> str:
        """Run a command and return what it printed.

        Raises:
            CliError: it failed, or took longer than these seconds.
        """
        try:
            result = subprocess.run(
                [self._program, "--kubeconfig", self._kubeconfig, *arguments],
                check=False,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=seconds,
                # Its caches go beside the kubeconfig and not into the user's home.
                env={**os.environ, "KUBECACHEDIR": str(self._kubeconfig.parent / "cache")},
            )
        except subprocess.TimeoutExpired as error:
            why = f"did not end within {seconds:.0f} s"
            raise self._failure(arguments, why) from error
        if result.returncode != 0:
            raise self._failure(arguments, f"failed: {clean(result.stderr)}")
        return result.stdout

    def _failure(self, arguments: Sequence[str], why: str) -> CliError:
        command = f"kubectl --kubeconfig {self._kubeconfig} get --raw /readyz"
        message = f"kubectl {arguments[0]} {why}"
        return CliError(message, ExitCode.FAILED, next_commands=(command, "make status"))
