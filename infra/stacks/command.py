"""The engine's command, started so that it outlives no one and is killed by nobody's pipe."""

import os
import subprocess
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

from pulumi.automation import CommandError, CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from infra.stacks.watch import Watch
from infra.supervisor.configuration import util_linux
from infra.tools.pins import PULUMI_VERSION

# What the SDK asks for after a run though it is known here without another process of 0.3 s: the
# outputs are read from the state, the counts come with the events.
_ANSWERS: Final = {
    ("stack", "output"): "{}",
    ("stack", "history"): (
        '[{"kind": "update", "startTime": "2000-01-01T00:00:00.000Z", "message": "",'
        ' "environment": {}, "config": {}, "result": "succeeded"}]'
    ),
}


class EngineCommand(PulumiCommand):
    """Runs Pulumi's CLI of a known version.

    Its output goes to files: pipes to a runner that is killed would kill the engine in the middle
    of a call, with its lock left.
    """

    def __init__(self, program: Path, work: Path, watch: Watch, *, is_new: bool) -> None:
        self.command = os.fspath(program)
        # The program is pinned and checked where it is made; asking it costs a process.
        self.version = VersionInfo.parse(PULUMI_VERSION.removeprefix("v"))
        self._work = work
        self._watch = watch
        self._is_new = is_new
        self._numbers = count(1)
        # Whoever kills the runner ends the engine as well: by an interrupt, at which it finishes
        # what the provider is doing.
        self._prefix = [util_linux("setpriv"), "--pdeathsig=INT"]

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,  # noqa: ARG002 - the SDK's signature
        on_error: Callable[[str], Any] | None = None,  # noqa: ARG002
    ) -> CommandResult:
        """Run one command to its end.

        Raises:
            CommandError: it failed, or nothing may be begun any more.
        """
        verbs = (args[0], args[1] if len(args) > 1 else "")
        if verbs in _ANSWERS:
            return CommandResult(_ANSWERS[verbs], "", 0)
        if verbs == ("stack", "select") and not self._is_new:
            return CommandResult("", "", 0)
        if self._watch.stopping:
            raise CommandError(CommandResult("", "update canceled", 1))
        return self._run(args, cwd, additional_env)

    def _run(self, args: list[str], cwd: str, additional_env: Mapping[str, str]) -> CommandResult:
        number = next(self._numbers)
        output, errors = self._work / f"{number}.out", self._work / f"{number}.err"
        with output.open("wb") as out, errors.open("wb") as err:
            code = subprocess.run(
                [*self._prefix, self.command, "--non-interactive", *args],
                check=False,
                cwd=cwd,
                env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            ).returncode
        result = CommandResult(
            output.read_text(errors="replace"), errors.read_text(errors="replace"), code
        )
        if code != 0:
            raise create_command_error(result)
        return result
