"""Local servers by hand: make the image, switch servers on and off, look into them."""

import argparse
import json
import sys
from pathlib import Path

from domain.errors import BulkheadError
from infra.local_cloud.cloud import LocalCloud, sweep_lost_clouds
from infra.local_cloud.clouds import add_arguments, serve_clouds
from infra.local_cloud.host import DEFAULT_DIRECTORY, Host
from infra.local_cloud.image import server_image
from infra.tools.progress import Progress

# What shells report for a command that SIGINT ended.
_INTERRUPTED = 130
_DEFAULT_NETWORK = "default"
_DEMO_SERVERS = (
    "Those of the demo are in demo/servers of BULKHEAD_HOME (.bulkhead unless you set it): "
    "python -m infra.local_cloud --directory .bulkhead/demo/servers list"
)


def main() -> int:
    """Run the command; the exit status is that of `run`, else 1 when something cannot be done."""
    arguments = _parser().parse_args()
    try:
        with Progress() as progress:
            return _run(arguments, progress)
    except BulkheadError as error:
        print(error.message, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; servers that run go on.", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local_cloud",
        description="Servers that really boot on this machine. Takes Linux and root.",
    )
    parser.add_argument(
        "--directory", type=Path, default=DEFAULT_DIRECTORY, help="of the servers (%(default)s)"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("check", help="say what keeps servers from booting here")
    actions.add_parser("prepare", help="install what is lacking, with apt-get")
    actions.add_parser("image", help="make the image; says why not where it cannot be")
    listing = actions.add_parser("list", help="list the servers")
    listing.add_argument("--json", action="store_true", help="for programs")
    actions.add_parser("sweep", help="remove what killed processes left on this host")
    boot = actions.add_parser("boot", help="switch a server on, making it if it is new")
    boot.add_argument("--network", default=_DEFAULT_NETWORK, help="of a new one (%(default)s)")
    boot.add_argument("--user-data", type=Path, metavar="FILE", help="of a new one, for cloud-init")
    clouds = actions.add_parser("clouds", help="serve the APIs of the local clouds on loopback")
    add_arguments(clouds)
    run = actions.add_parser("run", help="run a shell command in a server")
    others = [
        actions.add_parser("console", help="print what a server wrote to its console"),
        actions.add_parser("stop", help="shut a server down"),
        actions.add_parser("power-cut", help="end a server at once"),
        actions.add_parser("remove", help="end a server and throw its disk away"),
    ]
    for action in (boot, run, *others):
        action.add_argument("name", metavar="NAME")
    run.add_argument("command", metavar="COMMAND", help="or - for a script on standard input")
    return parser


def _run(arguments: argparse.Namespace, progress: Progress) -> int:
    host, cloud = Host(arguments.directory), LocalCloud(arguments.directory)
    match arguments.action:
        case "check":
            for sentence in host.check() or ["Servers boot here."]:
                print(sentence)
        case "prepare":
            host.prepare(progress)
        case "image":
            _make_image(host, progress)
        case "list":
            if arguments.json:
                _print_json(cloud)
            else:
                _print_table(cloud)
        case "sweep":
            _sweep(cloud)
        case "clouds":
            serve_clouds(arguments, host, progress)
        case "boot":
            _boot(arguments, host, cloud, progress)
        case _:
            return _act(arguments, cloud)
    return 0


def _sweep(cloud: LocalCloud) -> None:
    cloud.sweep()
    for directory in sweep_lost_clouds():
        print(f"Removed what was left of {directory}.")


def _act(arguments: argparse.Namespace, cloud: LocalCloud) -> int:
    """Do something with a server that exists."""
    server = cloud.server(arguments.name)
    match arguments.action:
        case "console":
            print(server.console.read_text(errors="replace"), end="")
        case "run":
            if arguments.command == "-":
                result = server.run("exec sh -s", text=sys.stdin.read())
            else:
                result = server.run(arguments.command)
            print(result.output, end="")
            print(result.errors, end="", file=sys.stderr)
            return result.status
        case "stop":
            server.stop()
        case "power-cut":
            server.power_cut()
        case "remove":
            server.remove()
            if all(other.network != server.network for other in cloud.servers()):
                cloud.remove_network(server.network.id)
    return 0


def _make_image(host: Host, progress: Progress) -> None:
    """Make the image where that can be; where not, a build goes on without local servers."""
    try:
        host.prepare(progress)
    except BulkheadError as error:
        print(f"There will be no local servers. {error.message}")
        return
    print(server_image(progress).layers[-1])


def _boot(arguments: argparse.Namespace, host: Host, cloud: LocalCloud, progress: Progress) -> None:
    host.prepare(progress)
    user_data = arguments.user_data.read_text() if arguments.user_data else ""
    server = cloud.create(
        arguments.name,
        network=cloud.network(arguments.network),
        image=server_image(progress),
        user_data=user_data,
    )
    server.boot()
    with progress.task(f"booting {server.name}"):
        server.wait_until_booted()
    print(f"{server.name} runs at {server.address}")


def _print_json(cloud: LocalCloud) -> None:
    facts = [
        {"name": server.name, "running": server.is_running, "address": str(server.address)}
        for server in cloud.servers()
    ]
    print(json.dumps(facts, indent=2))


def _print_table(cloud: LocalCloud) -> None:
    servers = cloud.servers()
    if not servers:
        print(f"There are no servers in {cloud.directory}. {_DEMO_SERVERS}")
        return
    rows = [("NAME", "STATE", "ADDRESS", "NETWORK", "DROPPED", "ACCEPTED FROM OUTSIDE")]
    for server in servers:
        counters = server.firewall_counters()
        state = "running" if server.is_running else "off"
        counts = (str(counters.dropped), str(counters.accepted))
        rows.append((server.name, state, str(server.address), server.network.id, *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(f"{cell:{width}}" for cell, width in cells).rstrip())
