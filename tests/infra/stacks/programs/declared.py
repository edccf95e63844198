"""A process that prints what programs declare, as the SDK hands it to the engine.

A process of its own, since Pulumi keeps state in modules and an event loop of its own; one for all
programs, since the SDK takes seconds to load.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, mocks
from pulumi.runtime.stack import run_pulumi_func

from domain.stack import MachineShape, NetworkShape, StackKind, StackProgram


class Recorder(Mocks):
    """Answers every resource with its inputs, and every question with `answers`."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        self._answers = answers

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.resources[args.name] = dict(args.inputs)
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        self.calls.append(dict(args.args))
        return self._answers, []


def as_request(programs: Sequence[StackProgram], answers: dict[str, Any]) -> str:
    """Return what this process reads."""
    return json.dumps({"programs": [asdict(one) for one in programs], "answers": answers})


def _declare(fields: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    kind = StackKind(fields["kind"])
    shape_type = NetworkShape if kind is StackKind.NETWORK else MachineShape
    program = StackProgram(**{**fields, "kind": kind, "shape": shape_type(**fields["shape"])})
    module = importlib.import_module(f"infra.stacks.programs.{program.provider}")
    recorder = Recorder(answers)
    # Before the mocks, which bind the stack's root to it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    mocks.set_mocks(recorder, project="bulkhead", stack="declared")

    def declare() -> None:
        if kind is StackKind.NETWORK:
            module.network(program, program.shape)
        else:
            module.machine(program, program.shape, pulumi.Output.secret("#cloud-config\n"))

    loop.run_until_complete(run_pulumi_func(declare))
    return {"resources": recorder.resources, "calls": recorder.calls}


def main() -> None:
    """Answer on standard output what standard input asks."""
    asked = json.loads(sys.stdin.read())
    found = [_declare(fields, asked["answers"]) for fields in asked["programs"]]
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
