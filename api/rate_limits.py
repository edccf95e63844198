"""How often the values of one secret may be read: a moving minute, counted in this process.

The libraries that were looked at start a thread for each request, or one for each key, to forget
what is old; here a request forgets two others.
"""

import math
import time
from collections import OrderedDict, deque
from typing import Final

from api.errors import RETRY_AFTER
from domain.errors import BulkheadError, Reason

_WINDOW_SECONDS: Final = 60.0


class AccessLimits:
    """The reads of the last minute, by secret. For one event loop."""

    def __init__(self) -> None:
        # The secret that was read last is at the end.
        self._reads: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, secret_id: str, limit: int) -> None:
        """Count one read.

        Args:
            secret_id: of which secret.
            limit: how many are allowed in any minute.

        Raises:
            BulkheadError: RATE_LIMITED, with the seconds after which one more is allowed.
        """
        now = time.monotonic()
        self._forget(now)
        reads = self._reads.setdefault(secret_id, deque())
        while reads and reads[0] <= now - _WINDOW_SECONDS:
            reads.popleft()
        if len(reads) >= limit:
            # When the limit was lowered, more than one has to be forgotten first.
            wait = reads[len(reads) - limit] + _WINDOW_SECONDS - now
            raise BulkheadError(
                Reason.RATE_LIMITED,
                f"The values of this secret were read {limit} times within a minute, which is what "
                "the workspace's secret policy allows. Keep a value instead of reading it again, "
                "or have an owner raise `accesses_per_minute`.",
                metadata={RETRY_AFTER: str(max(1, math.ceil(wait)))},
            )
        reads.append(now)
        self._reads.move_to_end(secret_id)

    def _forget(self, now: float) -> None:
        for _ in range(2):
            oldest = next(iter(self._reads.items()), None)
            if oldest is None or (oldest[1] and oldest[1][-1] > now - _WINDOW_SECONDS):
                return
            del self._reads[oldest[0]]
