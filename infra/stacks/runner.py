"""The process of one run: `python -m infra.stacks.runner DIRECTORY`.

It reads `request.json` in the directory and writes `events.jsonl` while it works and `result.json`
at its end. Credentials and Pulumi's settings come with the environment, the passphrase and the
server's user data with files beside the request. The worker speaks on standard input, as
`infra.stacks.watch` says.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import pulumi
from pulumi import automation
from pulumi.automation import LocalWorkspaceOptions, ProjectSettings, StackSettings

from domain.stack import PROJECT, StackAction, StackKind, StackProgram
from infra.clouds.registry import profile_of
from infra.stacks import runner_files as files
from infra.stacks.command import EngineCommand
from infra.stacks.events import EngineLog
from infra.stacks.request import StackRequest, request_of
from infra.stacks.watch import Watch

_PARALLEL: Final = 8


def main() -> int:
    """Carry the request out; the exit status is 1 when it failed."""
    work = Path(sys.argv[1])
    request = request_of(json.loads((work / files.REQUEST).read_text()))
    watch = Watch(request.program.stack_id, work)
    log = EngineLog(
        work / files.EVENTS,
        profile_of(request.program.provider).engine,
        only_looks=request.action is StackAction.REFRESH,
    )
    failure = ""
    try:
        _run(request, work, watch, log)
    except automation.CommandError as error:
        # Whole: cut here, a secret would be cut as well, and be known as one by nobody.
        failure = str(error)
    _write(
        work / files.RESULT,
        {
            "failed": bool(failure),
            "failure": failure,
            "errors": log.errors,
            "changes": log.changes,
            "drift": log.drift if request.action is StackAction.REFRESH else {},
            "cancelled": watch.stopping,
        },
    )
    return int(bool(failure))


def _run(request: StackRequest, work: Path, watch: Watch, log: EngineLog) -> None:
    stack = _open(request, work, watch)
    if request.after_crash:
        _forget_the_dead(stack, work)
    options: dict[str, Any] = {
        "on_event": log,
        "parallel": _PARALLEL,
        "color": "never",
        "suppress_outputs": True,
        "suppress_progress": True,
    }
    match request.action:
        case StackAction.UP:
            stack.up(refresh=request.after_crash or request.refresh, **options)
        case StackAction.REFRESH:
            # Written down, a difference would be found once and never again.
            stack.refresh(preview_only=True, **options)
        case StackAction.DESTROY:
            stack.destroy(refresh=request.after_crash, **options)


def _open(request: StackRequest, work: Path, watch: Watch) -> automation.Stack:
    name, project = request.program.name, work / "project"
    project.mkdir()
    settings = {}
    if request.encryption_salt is not None:
        # Without it the state would be encrypted anew at each run, under any passphrase.
        settings[name] = StackSettings(encryption_salt=request.encryption_salt)
    engine = EngineCommand(
        Path(os.environ[files.ENGINE_VARIABLE]), work, watch, is_new=request.is_new
    )
    options = LocalWorkspaceOptions(
        work_dir=os.fspath(project),
        project_settings=ProjectSettings(name=PROJECT, runtime="python", main=os.fspath(project)),
        stack_settings=settings,
        secrets_provider="passphrase",
        pulumi_command=engine,
    )
    # What is removed or looked at is in the state.
    program: pulumi.automation.PulumiFn = _nothing
    if request.action is StackAction.UP:
        program = _program(request.program, work / files.USER_DATA)
    start = automation.create_stack if request.is_new else automation.select_stack
    return start(stack_name=name, project_name=PROJECT, program=program, opts=options)


def _nothing() -> None:
    pass


def _program(program: StackProgram, user_data: Path) -> pulumi.automation.PulumiFn:
    module = importlib.import_module(f"infra.stacks.programs.{program.provider}")

    def run() -> None:
        if program.kind is StackKind.NETWORK:
            outputs = module.network(program, program.shape)
        else:
            text = user_data.read_text() if user_data.exists() else ""
            secret = pulumi.Output.secret(text) if text else None
            outputs = module.machine(program, program.shape, secret)
        for name, output in outputs.items():
            pulumi.export(name, output)

    return run


def _forget_the_dead(stack: automation.Stack, work: Path) -> None:
    """Take away the lock of a dead run, and the calls that it waited for."""
    stack.cancel()

    # Not by the SDK's own methods: these write the state's secrets out in the clear.
    def call(verb: str) -> None:
        arguments = ["stack", verb, "--stack", stack.name, "--file", os.fspath(state)]
        stack.workspace.pulumi_command.run(arguments, stack.workspace.work_dir, {})

    state = work / "state.json"
    call("export")
    document = json.loads(state.read_text())
    if document["deployment"].pop("pending_operations", None):
        state.write_text(json.dumps(document))
        call("import")


def _write(path: Path, document: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(document))
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
