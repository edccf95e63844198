"""Pauses of workflows that may wait for months, and the bound of what that adds to a history.

A look or another try is some ten or twenty events, and Temporal ends a workflow that has 51,200 of
them. Pauses are short at first, because most of what is waited for comes soon. Then each is longer
than the one before by a tenth: who mends the cause waits for little more than a tenth of the time
that has passed. The longest leaves room for years.
"""

from datetime import timedelta
from typing import Final

_GROWTH: Final = 1.1
LONGEST_PAUSE: Final = timedelta(hours=12)


def longer(pause: timedelta, *, doubled_up_to: timedelta) -> timedelta:
    """Return the pause that follows one.

    Args:
        pause: the one before.
        doubled_up_to: until then each is twice as long as the one before.
    """
    if pause < doubled_up_to:
        return min(pause * 2, doubled_up_to)
    return min(pause * _GROWTH, LONGEST_PAUSE)
