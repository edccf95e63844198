"""Medians of what ran side by side."""

import socket
import statistics
import sys
from collections.abc import Sequence

Figures = dict[str, object]


def compare(bare: Sequence[float], ours: Sequence[float], unit: str) -> Figures:
    """Return both medians, their spread and their ratio."""
    return {
        "unit": unit,
        "bare": spread(bare),
        "ours": spread(ours),
        "ratio": round(statistics.median(ours) / statistics.median(bare), 2),
    }


def spread(values: Sequence[float]) -> Figures:
    """Return median, least, greatest and how many."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "greatest": round(max(values), 3),
        "runs": len(values),
    }


def percentiles(values: Sequence[float]) -> Figures:
    """Return the median, the 99th percentile and how many."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1), "runs": len(values)}


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def say(message: str) -> None:
    """Tell a person how far it is."""
    sys.stderr.write(f"  {message}\n")
