"""Puts the local clouds' provider programs where the engine looks for a provider's own."""

import importlib.metadata
import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import Final

from domain.cloud import Provider

_ROOT: Final = Path(__file__).parents[3]


def install(pulumi_home: Path) -> list[Path]:
    """Install the programs of all providers that have one, and return them.

    The engine takes `plugins/resource-NAME-vVERSION/pulumi-resource-NAME`, of exactly the version
    of the provider's SDK, without a warning and without a download.
    """
    programs = []
    for provider in Provider:
        module = f"infra.local_cloud.{provider}.provider_program"
        if not _exists(module):
            continue
        version = importlib.metadata.version(f"pulumi_{provider}")
        directory = pulumi_home / "plugins" / f"resource-{provider}-v{version}"
        directory.mkdir(parents=True, exist_ok=True)
        program = directory / f"pulumi-resource-{provider}"
        _write(program, module)
        programs.append(program)
    return programs


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _write(program: Path, module: str) -> None:
    python, root = shlex.quote(sys.executable), shlex.quote(os.fspath(_ROOT))
    new = program.with_name(f".{program.name}.{os.getpid()}")
    # `exec`: the engine's signals reach the program itself, whose parent the engine is.
    new.write_text(f"#!/bin/sh\nPYTHONPATH={root} exec {python} -m {module}\n")
    new.chmod(0o755)
    new.replace(program)
