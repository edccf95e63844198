"""The stack that the demo talks to: one that is named by the environment, or the embedded one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

import cli
from cli.configuration import (
    HOME_VARIABLE,
    OWNER_FILE,
    STATE_DIRECTORY,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    Configuration,
    Connection,
    Wishes,
)
from cli.errors import CliError, ExitCode
from cli.output import Output
from cli.text import clean

_READY_TIMEOUT_SECONDS = 5.0

# What the stack's own command reads and keeps: where servers reach it.
NODE_ADDRESS_VARIABLE = "BULKHEAD_NODE_ADDRESS"
_NODE_ADDRESS_FILE = "node-address.json"
LOCAL_CLOUDS_VARIABLE = "BULKHEAD_LOCAL_CLOUDS"
_CLOUDS_FILE = "clouds.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Where the demo works.

    Attributes:
        connection: the API, as the first owner or as whom the environment names.
        home: the folder of the embedded stack; the demo keeps its own files below it.
        is_embedded: whether it is the stack of this checkout.
    """

    connection: Connection
    home: Path
    is_embedded: bool

    @property
    def directory(self) -> Path:
        """The demo's own directory, which goes with the stack's home."""
        return self.home / "demo"

    @property
    def is_reached_by_servers(self) -> bool:
        """Whether servers on this machine find an address at which they can join."""
        return self.is_embedded and (self.home / _NODE_ADDRESS_FILE).exists()

    @property
    def has_local_clouds(self) -> bool:
        """Whether three clouds on this machine stand for the providers of the same names."""
        return self.is_embedded and _has_local_clouds(self.home)

    @property
    def cloud_accounts(self) -> Path:
        """The folder with a credential for each local cloud."""
        return self.home / "clouds" / "accounts"

    def demo_image(self) -> str:
        """Return the reference of the demo's image, as nodes ask for it.

        Raises:
            CliError: the stack serves no images.
        """
        command = [sys.executable, "-m", "infra.embedded", "images"]
        printed = subprocess.run(
            command, check=False, cwd=checkout(), capture_output=True, text=True
        )
        if printed.returncode != 0:
            raise CliError(clean(printed.stderr), next_commands=("make status", "make up"))
        return str(json.loads(printed.stdout)["demo"])


def home_directory() -> Path:
    """Return the folder of the embedded stack, whether it is there or not."""
    return Path(os.environ.get(HOME_VARIABLE, "").strip() or checkout() / STATE_DIRECTORY)


def is_named_by_environment() -> bool:
    """Whether the environment names an API, and who asks it, instead of the embedded stack."""
    return bool(os.environ.get(URL_VARIABLE) and os.environ.get(TOKEN_VARIABLE))


def reach_stack(output: Output, *, for_servers: bool, with_clouds: bool) -> Stack:
    """Return the stack; bring the embedded one up when it does not answer.

    Args:
        output: told what is done.
        for_servers: whether servers on this machine shall be able to join. Where nothing else
            was chosen, the embedded stack gets a local address for them.
        with_clouds: whether there shall be clouds on this machine, unless it was chosen that
            there be none.

    Raises:
        CliError: it does not come up.
    """
    home = home_directory()
    if is_named_by_environment():
        connection = Configuration().resolve(Wishes())
        output.note(f"Using the API at {connection.url}, which {URL_VARIABLE} names.")
        return Stack(connection=connection, home=home, is_embedded=False)
    # The owner's file alone: a stored login may belong to another platform.
    embedded = Configuration({HOME_VARIABLE: str(home)})
    known = embedded.embedded_owner()
    lacks_address = (
        for_servers
        and not os.environ.get(NODE_ADDRESS_VARIABLE)
        and not (home / _NODE_ADDRESS_FILE).exists()
    )
    lacks_clouds = (
        with_clouds and not os.environ.get(LOCAL_CLOUDS_VARIABLE) and not _has_local_clouds(home)
    )
    if known is None or lacks_address or lacks_clouds or not _is_ready(known):
        settings = {NODE_ADDRESS_VARIABLE: "local"} if lacks_address else {}
        settings |= {LOCAL_CLOUDS_VARIABLE: "1"} if lacks_clouds else {}
        _bring_up(output, settings)
        known = embedded.embedded_owner()
    else:
        output.note(f"The embedded stack is up at {known.url}.")
    if known is None:
        message = f"The embedded stack left no {OWNER_FILE} in {home}."
        raise CliError(message, next_commands=("make status",))
    return Stack(connection=known, home=home, is_embedded=True)


def _has_local_clouds(home: Path) -> bool:
    try:
        chosen = json.loads((home / _CLOUDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(chosen.get("local"))


def checkout() -> Path:
    """Return the folder that the packages of the platform are in."""
    return Path(cli.__file__).resolve().parent.parent


def _is_ready(connection: Connection) -> bool:
    try:
        response = httpx.get(
            f"{connection.url}/readyz", timeout=_READY_TIMEOUT_SECONDS, trust_env=False
        )
    except httpx.HTTPError:
        return False
    return response.is_success


def _bring_up(output: Output, settings: dict[str, str]) -> None:
    chosen = "".join(f"{name}={value} " for name, value in settings.items())
    output.note(f"Bringing the embedded stack up: {chosen}python -m infra.embedded up")
    sys.stdout.flush()
    result = subprocess.run(
        [sys.executable, "-m", "infra.embedded", "up"],
        check=False,
        cwd=checkout(),
        env={**os.environ, **settings},
        stderr=sys.stdout,
    )
    if result.returncode != 0:
        message = f"The embedded stack did not come up (status {result.returncode})."
        raise CliError(message, ExitCode.UNAVAILABLE, next_commands=("make status", "make up"))
