"""Medians of what ran side by side."""

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


def say(message: str) -> None:
    """Tell a person how far it is."""
    sys.stderr.write(f"  {message}\n")
