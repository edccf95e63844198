"""The programs that no wheel carries: pinned, found or made once, kept in the user's cache.

A pin is a Go module directory (`go/<name>/go.mod` and `go.sum`), a version and, where they are
known, the checksums of the official release. A program is looked for in this order:

1. on PATH, if its version command prints exactly the pinned version and it stays on this host;
2. in the cache, under a path that is derived from the pin, so that a changed pin is another path;
3. built with Go from the module directory, where there is Go;
4. downloaded from the official release and checked against its sha256, where there is none.

`python -m infra.tools` makes all of them, or the programs and groups that it is given;
`python -m infra.tools --list` says where each one is.
"""

from infra.tools.pins import (
    CLIENT,
    CONTROL_PLANE,
    DEPLOYMENT,
    GROUPS,
    NODE,
    PLATFORM,
    PROGRAMS,
    STACKS,
)
from infra.tools.program import Program
from infra.tools.toolbox import Toolbox, ensure, install_into

__all__ = [
    "CLIENT",
    "CONTROL_PLANE",
    "DEPLOYMENT",
    "GROUPS",
    "NODE",
    "PLATFORM",
    "PROGRAMS",
    "STACKS",
    "Program",
    "Toolbox",
    "ensure",
    "install_into",
]
