"""Runs the benchmarks: figures as JSON on standard output, progress on standard error."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    api,
    creation,
    engine,
    exchange,
    fleet,
    installs,
    joining,
    rollouts,
    rotation,
    secrets,
    simulated_nodes,
    stacks,
    tunnel,
)
from tests.bench.measure import Figures

PARTS: dict[str, Callable[[], Figures]] = {
    "creation": creation.measure,
    "engine": engine.measure,
    "api": api.measure,
    "secrets": secrets.measure,
    "rotation": rotation.measure,
    "fleet": fleet.measure,
    "exchange": exchange.measure,
    "joining": joining.measure,
    "tunnel": tunnel.measure,
    "simulated_nodes": simulated_nodes.measure,
    "stacks": stacks.measure,
    "rollouts": rollouts.measure,
    "installs": installs.measure,
}


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    figures: dict[str, object] = {"machine": _machine()}
    for part in parser.parse_args().parts or PARTS:
        started = time.monotonic()
        sys.stderr.write(f"{part} ...\n")
        figures[part] = PARTS[part]()
        sys.stderr.write(f"{part} took {time.monotonic() - started:.0f} s\n")
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


def _machine() -> dict[str, object]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "cpu": names[0] if names else platform.processor(),
        "memory_gib": round(pages / 1024**3),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    main()
