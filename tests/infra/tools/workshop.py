"""Tiny Go modules with pins of their own, and the machine on which they are built."""

import shutil
from dataclasses import replace
from pathlib import Path

from infra.tools.program import GoModule, Program, Release
from infra.tools.toolbox import Toolbox

# It prints what its linker flags said, as the real programs do.
GREETER_SOURCE = """package main

import "fmt"

var version = "none"

func main() { fmt.Println("Greeter", version) }
"""


def greeter(directory: Path, version: str, source: str = GREETER_SOURCE) -> Program:
    """Make a pin of a one-file program whose module lies in `directory`."""
    (directory / "greeter").mkdir(parents=True, exist_ok=True)
    _write(directory / "go.mod", "module bulkhead.test/programs\n\ngo 1.21\n")
    _write(directory / "go.sum", "")
    _write(directory / "greeter" / "main.go", source)
    module = GoModule("programs", directory, version, f"-X main.version={version}", 1)
    return Program(
        name="greeter",
        package="bulkhead.test/programs/greeter",
        module=module,
        release=Release(url="http://127.0.0.1:9/greeter", sha256={}),
        version_arguments=(),
        version_pattern=r"^Greeter (\S+)$",
    )


def _write(path: Path, content: str) -> None:
    # Another process may be building what is there.
    if not path.exists() or path.read_text() != content:
        path.write_text(content)


def executable(path: Path, script: str) -> Path:
    """Write a shell script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class Workshop:
    """A cache, a PATH with the real Go behind a counter, and toolboxes made of them."""

    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        self.bin = directory / "bin"
        self.builds = directory / "builds"
        self.builds.touch()
        go = shutil.which("go")
        assert go is not None, "these tests build with Go: install it"
        executable(self.bin / "go", f'echo build >> {self.builds}\nexec {go} "$@"')

    def toolbox(self, program: Program, *, with_go: bool = True) -> Toolbox:
        """Open the workshop's cache for one pin."""
        path = str(self.bin) if with_go else str(self.bin.parent / "nowhere")
        return Toolbox({program.name: program}, self.cache, path)

    @property
    def build_count(self) -> int:
        """How often Go was started."""
        return len(self.builds.read_text().splitlines())


def released(program: Program, url: str, sha256: dict[str, str], member: str | None) -> Program:
    """Give a pin another release."""
    return replace(program, release=Release(url=url, sha256=sha256, member=member))
