"""Starts and stops a control-plane host: `python -m infra.control_planes.host [--stop]`.

Starting brings up the host's own supervisord with every control plane that was there; stopping
ends them all and keeps their data.
"""

import argparse
import logging

from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.control_planes.placement import HostPlacement
from infra.control_planes.processes import host_supervisor
from infra.settings import ControlPlaneSettings


class HostSettings(BaseSettings):
    """What this program reads of the environment: `CONTROL_PLANES__...`."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore")

    control_planes: ControlPlaneSettings


def main() -> None:
    """Start the host's supervisord, or stop it with all control planes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stop", action="store_true", help="stop instead, and keep all data")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = HostSettings().control_planes
    supervisor = host_supervisor(settings)
    if arguments.stop:
        supervisor.shutdown()
        return
    HostPlacement(settings)
    supervisor.ensure_running()


if __name__ == "__main__":
    main()
