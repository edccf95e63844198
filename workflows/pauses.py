"""Pauses of workflows that may wait for months, and the bound of what that adds to a history.

A look or another try is some ten or twenty events, and Temporal ends a workflow that has 51,200 of
them. Pauses are short at first, because most of what is waited for comes soon. Then each is longer
than the one before by a tenth: who mends the cause waits for little more than a tenth of the time
that has passed. The longest leaves room for years. A workflow that may begin anew does so long
before (`workflows.saga`), and waits without end.
"""

from datetime import timedelta
from typing import Final

from temporalio import workflow

_GROWTH: Final = 1.1
LONGEST_PAUSE: Final = timedelta(hours=12)

# Events after which a workflow that waits begins anew: replayed within a second.
LONGEST_HISTORY: Final = 2000
_BEGINS_ANEW: Final = "begins-anew"


def longer(pause: timedelta, *, doubled_up_to: timedelta) -> timedelta:
    """Return the pause that follows one.

    Args:
        pause: the one before.
        doubled_up_to: until then each is twice as long as the one before.
    """
    if pause < doubled_up_to:
        return min(pause * 2, doubled_up_to)
    return min(pause * _GROWTH, LONGEST_PAUSE)


def begin_anew_if_long(given: object | None) -> None:
    """Begin a workflow that is about to wait anew, once its history is long.

    Args:
        given: what it was given, and shall be again; None: it cannot begin anew.
    """
    if given is None or workflow.info().get_current_history_length() < LONGEST_HISTORY:
        return
    # One of before that is longer already goes on as it began.
    if workflow.patched(_BEGINS_ANEW):
        workflow.continue_as_new(given)
