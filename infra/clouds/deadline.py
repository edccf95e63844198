"""An end for what makes several calls of a provider one after the other, in a thread."""

import time

from domain.errors import BulkheadError, Reason


class Deadline:
    """Lets no call begin once the time is up; one that has begun ends by its own timeout.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def check(self, **_: object) -> None:
        """Return while there is time left; also a handler of botocore's events.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE.
        """
        if time.monotonic() > self._end:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "The provider answers too slowly; the step is tried again.",
                metadata={"dependency": "provider"},
            )
