"""One `up` by Pulumi's Automation API as its documentation has it, and nothing else.

`python -m tests.bench.bare_stack REQUEST`, with credential, backend and passphrase in the
environment: what the runner is measured beside.
"""

import importlib
import json
import sys
from pathlib import Path

import pulumi
from pulumi import automation

from domain.stack import PROJECT
from infra.stacks.request import request_of


def main() -> None:
    """Carry the request out."""
    program = request_of(json.loads(Path(sys.argv[1]).read_text())).program
    module = importlib.import_module(f"infra.stacks.programs.{program.provider}")

    def run() -> None:
        for name, output in module.network(program, program.shape).items():
            pulumi.export(name, output)

    stack = automation.create_or_select_stack(
        stack_name=program.name, project_name=PROJECT, program=run
    )
    stack.up()


if __name__ == "__main__":
    main()
