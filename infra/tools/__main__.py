"""The command `python -m infra.tools`: make the pinned programs, or say where they are."""

import argparse
import sys
from pathlib import Path

from domain.errors import BulkheadError
from infra.tools.pins import GROUPS, PROGRAMS
from infra.tools.toolbox import Toolbox

# What shells report for a command that SIGINT ended.
_INTERRUPTED = 130


def main() -> int:
    """Run the command; the exit status is 1 when a program cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.tools",
        description="Find the pinned programs, and build or download those that are missing.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"a program, or one of the groups {', '.join(GROUPS)}; default: all of them",
    )
    parser.add_argument("--list", action="store_true", help="say where they are, make nothing")
    parser.add_argument("--into", type=Path, metavar="DIRECTORY", help="also put them there")
    arguments = parser.parse_args()
    named = arguments.names or GROUPS
    names = [name for one in named for name in GROUPS.get(one, (one,))]
    toolbox = Toolbox()
    try:
        if arguments.into:
            toolbox.install_into(arguments.into, names)
        elif not arguments.list:
            toolbox.ensure(names)
        _print_table(toolbox, names)
    except BulkheadError as error:
        print(error.message, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; what was finished is kept.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _print_table(toolbox: Toolbox, names: list[str]) -> None:
    rows = [("PROGRAM", "VERSION", "FOUND")]
    for name in names:
        place = toolbox.find(name)
        found = f"{place.origin}: {place.path}" if place else "not yet; run `make programs`"
        rows.append((name, PROGRAMS[name].version, found))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, version, found in rows:
        print(f"{name:{widths[0]}}  {version:{widths[1]}}  {found}")


if __name__ == "__main__":
    sys.exit(main())
