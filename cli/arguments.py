"""What people write behind options: spans of time, and pairs."""

import re
from collections.abc import Sequence

from cli.errors import CliError, ExitCode

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_SPAN = re.compile(rf"({_NUMBER.pattern})([smhd])")
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def seconds_of(text: str, option: str, example: str = "30d") -> int:
    """Return the seconds that `45m`, `12h` or `30d` stand for.

    Args:
        text: what was written.
        option: behind which.
        example: what is told where it is written in another way.

    Raises:
        CliError: it is written in another way.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        message = (
            f"{option} takes a number and s, m, h or d, for example {example}, and {text!r} is "
            "none."
        )
        raise CliError(message, ExitCode.USAGE)
    return int(match[1]) * _UNITS[match[2]]


def seconds_within(text: str, option: str, least: int, most: int) -> int:
    """Return the seconds that a span stands for, or `0`, where it lies within bounds.

    Raises:
        CliError: it is written in another way, or is too short or too long.
    """
    seconds = 0 if text == "0" else seconds_of(text, option, _example(text, least, most))
    if not least <= seconds <= most:
        message = f"{option} is from {span_of(least)} to {span_of(most)}, and {text} is not."
        raise CliError(message, ExitCode.USAGE)
    return seconds


def _example(text: str, least: int, most: int) -> str:
    """Return what may have been meant where a unit is missing, else the longest that is allowed."""
    if _NUMBER.fullmatch(text):
        for unit in "mhds":
            if least <= int(text) * _UNITS[unit] <= most:
                return f"{text}{unit}"
    return span_of(most)


def span_of(seconds: int) -> str:
    """Return seconds as `seconds_of` reads them, in the largest unit that is exact."""
    for unit, size in _UNITS.items():
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def pairs_of(texts: Sequence[str], option: str) -> dict[str, str]:
    """Return what `KEY=VALUE` options say; of two with the same key the last one counts.

    Raises:
        CliError: one of them is written in another way.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            message = f"{option} takes KEY=VALUE, and {text!r} is none."
            raise CliError(message, ExitCode.USAGE)
        pairs[key] = value
    return pairs
