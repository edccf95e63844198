"""`python -m infra.compose secrets|platform|owner|user|authority|worker-health`."""

import argparse
import logging
import sys
from collections.abc import Sequence

import httpx

from domain.errors import BulkheadError
from infra.compose.health import HealthSettings, check_worker
from infra.compose.platform import (
    PlatformSettings,
    authority_certificate,
    owner_lines,
    prepare_platform,
    prepared_database,
)
from infra.compose.secret_files import write_secrets
from infra.compose.volumes import OPENBAO_PORT, Users, Volumes
from infra.embedded.new_users import USER_HELP, add_user_arguments, show_new_user

_COMMANDS = {
    "secrets": "make the secrets of every service",
    "platform": "bring the database to the newest state and make the first owner",
    "owner": "print the API's address and the first owner's token",
    "authority": "print the certificate that clients of the API trust",
    "worker-health": "succeed when this host's worker polls",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 1 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m infra.compose")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in _COMMANDS.items():
        commands.add_parser(name, help=text)
    add_user_arguments(commands.add_parser("user", help=USER_HELP))
    chosen = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _run(chosen, Volumes())
    except BulkheadError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


def _run(chosen: argparse.Namespace, volumes: Volumes) -> None:
    match chosen.command:
        case "secrets":
            write_secrets(volumes, Users(), openbao_runs=_openbao_runs())
        case "platform":
            prepare_platform(volumes, PlatformSettings())
        case "owner":
            sys.stdout.write(owner_lines(volumes))
        case "user":
            show_new_user(prepared_database(PlatformSettings()), chosen)
        case "authority":
            sys.stdout.write(authority_certificate(volumes))
        case _:
            check_worker(HealthSettings())


def _openbao_runs() -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=2.0) as client:
            client.get(f"http://openbao:{OPENBAO_PORT}/v1/sys/seal-status")
    except httpx.HTTPError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
