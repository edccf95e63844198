"""The three clouds' APIs in one process: `python -m infra.local_cloud clouds`."""

import argparse
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from domain.cloud import Provider
from infra.local_cloud.boots import Boots, NoBoots
from infra.local_cloud.cloud import LocalCloud
from infra.local_cloud.host import Host
from infra.local_cloud.image import server_image
from infra.local_cloud.profile import local_profile_of
from infra.local_cloud.real_boots import RealBoots
from infra.local_cloud.serving import served
from infra.tools.progress import Progress

# Long enough to see progress, and to cut something off in the middle.
_ACTION_SECONDS: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    for provider in Provider:
        parser.add_argument(
            f"--{provider}-port",
            type=int,
            default=local_profile_of(provider).port,
            help="(%(default)s)",
        )
    parser.add_argument(
        "--no-boots", action="store_true", help="servers are records of the APIs and nothing else"
    )
    parser.add_argument(
        "--action-seconds",
        type=float,
        default=_ACTION_SECONDS,
        help="how long what a provider does takes (%(default)s)",
    )


def serve_clouds(arguments: argparse.Namespace, host: Host, progress: Progress) -> None:
    """Serve until SIGINT or SIGTERM; servers that run go on."""
    boots: Boots = NoBoots()
    if not arguments.no_boots:
        host.prepare(progress)
        boots = RealBoots(LocalCloud(arguments.directory), server_image(progress))
    ports = {provider: getattr(arguments, f"{provider}_port") for provider in Provider}
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with serving(ports, boots, arguments.action_seconds) as urls:
        _tell(arguments.directory, urls)
        ended.wait()


@contextmanager
def serving(
    ports: dict[Provider, int], boots: Boots, action_seconds: float
) -> Iterator[dict[Provider, str]]:
    """Serve the APIs of all providers; gives their URLs."""
    with ExitStack() as stack:
        yield {
            provider: stack.enter_context(
                served(provider, boots=boots, action_seconds=action_seconds, port=port)
            )
            for provider, port in ports.items()
        }


def _tell(directory: Path, urls: dict[Provider, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "clouds.json").write_text(json.dumps(urls, indent=2))
    for provider, url in urls.items():
        print(f"{provider} {url}", flush=True)
