"""Small texts: times, durations, and what the outside world sent, made safe to show."""

import time
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_SECONDS_WITH_HUNDREDTHS = 10
_SECONDS_WITH_DECIMALS = 100

# Categories of Unicode that can move a cursor, change colours or reorder what is shown:
# controls, formats (bidirectional overrides among them), surrogates.
_UNSAFE = frozenset({"Cc", "Cf", "Cs"})


def clean(value: object) -> str:
    """Return one line without anything that could control a terminal."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    # Lines and tabs become blanks.
    shown = "".join(
        c if c in "\t\n" or unicodedata.category(c) not in _UNSAFE else "�" for c in text
    )
    return " ".join(shown.split())


def name_in(resource: Mapping[str, object]) -> str:
    """Return how a person calls a resource: by its name, or its server's; may be empty.

    A machine in a cloud without a name is called as its node is: with a resume, or for a repair, it
    gets another server, and with that another server's name.
    """
    if resource.get("kind") == "cloud" and not resource.get("name"):
        return clean(resource["id"]).replace("_", "-")
    return clean(resource.get("name") or resource.get("hostname"))


def label_name_of(install: Mapping[str, Any]) -> str:
    """Return the name that an install has by its label `name`; may be empty."""
    return clean((install.get("labels") or {}).get("name"))


def is_plain(text: str) -> bool:
    """Whether a terminal shows the text and does nothing else; lines and tabs may be in it."""
    return all(c in "\t\r\n" or unicodedata.category(c) not in _UNSAFE for c in text)


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `4.20 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = max(seconds, 0.0)
    if seconds < _SECONDS_WITH_HUNDREDTHS:
        return f"{seconds:.2f} s"
    if seconds < _SECONDS_WITH_DECIMALS:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def age(unix_seconds: object, now: float | None = None) -> str:
    """Return how long ago a time was, in one unit: `45s`, `12m`, `3h`, `8d`."""
    if not isinstance(unix_seconds, int):
        return "-"
    past = max(int((time.time() if now is None else now) - unix_seconds), 0)
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if past >= size:
            return f"{past // size}{unit}"
    return f"{past}s"


def remaining(unix_seconds: object, now: float | None = None) -> str:
    """Return how long it is until a time, in one unit as `age`; `over` when it has passed."""
    if not isinstance(unix_seconds, int):
        return "-"
    left = unix_seconds - int(time.time() if now is None else now)
    return age(-left, 0) if left > 0 else "over"


def moment(unix_seconds: object, missing: str = "-") -> str:
    """Return a time in UTC, to the second."""
    if not isinstance(unix_seconds, int):
        return missing
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plural(count: int, singular: str) -> str:
    """Return `1 cluster`, `2 clusters`."""
    return f"{count} {singular}" if count == 1 else f"{count} {singular}s"
