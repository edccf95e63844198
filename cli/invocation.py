"""How this client was called, so that the commands it proposes work where they are read."""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = "bulkhead"

_COMMAND = re.compile(rf"(?P<indent>\s*){PROGRAM} (?P<words>\S.*?)(?P<remark>   \(.*)?")

# What happens outside of any workspace, or chooses one.
_WITHOUT_WORKSPACE = frozenset({"login", "logout", "whoami", "version", "workspaces"})


def called_program() -> str:
    """Return what to type for `bulkhead`: its path where it is not on PATH."""
    if shutil.which(PROGRAM):
        return PROGRAM
    called = Path(sys.argv[0])
    if called.name != PROGRAM:
        called = Path(sys.executable).with_name(PROGRAM)
    if called.is_file():
        return shlex.quote(shown(called))
    return f"{shlex.quote(shown(Path(sys.executable)))} -m cli"


def shown(path: Path) -> str:
    """Return the path as it is typed from the current directory."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path.absolute())


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """The program's name and the options that the next command needs as well.

    Attributes:
        program: what to type for `bulkhead`.
        workspace: given by `--workspace`; None where it is remembered or the token's own.
        url: given by `--url`.
        ca_file: given by `--ca-file`.
    """

    program: str = field(default_factory=called_program)
    workspace: str | None = None
    url: str | None = None
    ca_file: str | None = None

    def typed(self, command: str) -> str:
        """Return a proposed command as it is typed here; other texts stay as they are."""
        match = _COMMAND.fullmatch(command)
        if match is None:
            return command
        words = match["words"]
        options = {"--url": self.url, "--ca-file": self.ca_file}
        if words.split()[0] not in _WITHOUT_WORKSPACE:
            options = {"--workspace": self.workspace, **options}
        for option, value in options.items():
            if value is not None and option not in words:
                words += f" {option} {shlex.quote(value)}"
        return f"{match['indent']}{self.program} {words}{match['remark'] or ''}"
