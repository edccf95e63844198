"""Our runner and the real engine over a provider's programs, with states in files: no servers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.stack import PROJECT, StackAction, StackProgram
from infra.stacks import runner_files as files
from infra.stacks import sessions
from infra.stacks.failures import failure_of
from infra.stacks.request import StackRequest, StackSecrets
from infra.stacks.watch import ALIVE, RENEW_SECONDS

_WORDS = "correct horse battery staple"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run came to."""

    outputs: Mapping[str, str]
    changes: Mapping[str, int]
    drift: Mapping[str, Any]


@dataclass(kw_only=True)
class Engine:
    """What runs programs.

    Attributes:
        program: the CLI.
        pulumi_home: with the local clouds' provider programs.
        directory: for states and work.
    """

    program: Path
    pulumi_home: Path
    directory: Path
    _runs: int = field(default=0, init=False)

    def run(
        self,
        action: StackAction,
        program: StackProgram,
        credential: Mapping[str, str],
        user_data: str = "",
    ) -> Run:
        """Run an action to its end; raises what it failed with, as a `BulkheadError`."""
        self._runs += 1
        work = self.directory / f"run-{self._runs}"
        request = StackRequest(
            action=action,
            program=program,
            operation_id="",
            fence=self._runs,
            encryption_salt=self._salt(program),
            is_new=not self._stored(program).exists(),
        )
        secrets = StackSecrets(passphrase=_WORDS, credential=credential, user_data=user_data)
        self._prepare(work, request, secrets)
        self._carry_out(work, request, secrets)
        document = json.loads((work / files.RESULT).read_text())
        if document["failed"]:
            raise failure_of(request, document, secrets)
        return Run(
            outputs=self._outputs(program), changes=document["changes"], drift=document["drift"]
        )

    def forget(self) -> None:
        """Lose all states."""
        shutil.rmtree(self.directory / ".pulumi")

    def state(self, program: StackProgram) -> str:
        """Return a stack's state as it is stored: what is secret is encrypted in it."""
        return self._stored(program).read_text()

    def _prepare(self, work: Path, request: StackRequest, secrets: StackSecrets) -> None:
        (work / files.HOME).mkdir(parents=True)
        (work / files.HOME / "plugins").symlink_to(self.pulumi_home / "plugins")
        (work / files.REQUEST).write_text(json.dumps(request.as_json()))
        (work / files.PASSPHRASE).write_text(secrets.passphrase)
        if secrets.user_data:
            (work / files.USER_DATA).write_text(secrets.user_data)

    def _carry_out(self, work: Path, request: StackRequest, secrets: StackSecrets) -> None:
        home = os.fspath(work / files.HOME)
        environment = {
            **os.environ,
            **secrets.credential,
            **sessions.mark_of(request.program.stack_id),
            files.ENGINE_VARIABLE: os.fspath(self.program),
            "PYTHONPATH": os.fspath(_ROOT),
            "PULUMI_BACKEND_URL": f"file://{self.directory}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": os.fspath(work / files.PASSPHRASE),
            "PULUMI_HOME": home,
            "HOME": home,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
        }
        with (
            (work / files.LOG).open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "infra.stacks.runner", os.fspath(work)],
                cwd=work,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            assert process.stdin is not None
            while process.poll() is None:
                process.stdin.write(ALIVE)
                process.stdin.flush()
                _wait(process)
        assert (work / files.RESULT).exists(), (work / files.LOG).read_text()

    def _stored(self, program: StackProgram) -> Path:
        return self.directory / ".pulumi/stacks" / PROJECT / f"{program.name}.json"

    def _latest(self, program: StackProgram) -> dict[str, Any]:
        stored = json.loads(self._stored(program).read_text())
        return dict(stored["checkpoint"]["latest"] or {})

    def _salt(self, program: StackProgram) -> str | None:
        if not self._stored(program).exists():
            return None
        provider = self._latest(program).get("secrets_providers") or {"state": {}}
        salt: str | None = provider["state"].get("salt")
        return salt

    def _outputs(self, program: StackProgram) -> dict[str, str]:
        for resource in self._latest(program).get("resources", ()):
            if resource["type"] == "pulumi:pulumi:Stack":
                return dict(resource.get("outputs", {}))
        return {}


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(RENEW_SECONDS)
    except subprocess.TimeoutExpired:
        return
