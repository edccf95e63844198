"""Which of many equal events have an audit line of their own: the first ones, then each doubling.

Whoever can repeat what is denied could fill the audit log, and bury what else is in it. That it
went on, and how often, must stay to be seen: the lines that are written count those that are not.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# Sixteen servers that were given one token at once are a mistake that is worth sixteen lines.
FULL_LINES: Final = 20

_WINDOW_SECONDS: Final = 3600.0
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Window:
    ends: float
    count: int = 0


class AuditBudget:
    """Counts events within an hour of the first one. For one event loop; a restart forgets.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def take(self, key: str, times: int = 1) -> int | None:
        """Count events, and tell whether they have a line.

        Args:
            key: what is equal: who does what to what.
            times: how many happened at once.

        Returns:
            How many there were within the hour, for the line; None: there is none.
        """
        now = self._clock()
        window = self._windows.get(key)
        if window is None or now >= window.ends:
            window = self._windows[key] = _Window(now + _WINDOW_SECONDS)
            self._windows.move_to_end(key)
            while len(self._windows) > _REMEMBERED:
                self._windows.popitem(last=False)
        before, window.count = window.count, window.count + times
        doubled = window.count.bit_length() > before.bit_length()
        return window.count if before < FULL_LINES or doubled else None
