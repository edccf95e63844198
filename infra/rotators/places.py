"""How many targets are asked at the same time, so that those that hang hold up nobody else."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from domain.errors import BulkheadError, Reason

# A target that answers does so within a second or two; a step that asks one holds a place of the
# control queue, which everybody's operations need.
_OF_A_WORKSPACE: Final = 20
_IN_ALL: Final = 200


class TargetPlaces:
    """Counts the rotations of one process that ask their targets. For one event loop."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, workspace_id: str) -> Iterator[None]:
        """Hold a place while a target is asked.

        Raises:
            BulkheadError: RATE_LIMITED when there is none: the step is tried again, and holds
                nothing until then.
        """
        of_all = self._taken.total() >= _IN_ALL
        if of_all or self._taken[workspace_id] >= _OF_A_WORKSPACE:
            raise BulkheadError(
                Reason.RATE_LIMITED,
                f"{_IN_ALL if of_all else _OF_A_WORKSPACE} rotations "
                f"{'' if of_all else 'of this workspace '}ask their targets at this moment, and "
                "more are not asked at once. The step is tried again.",
            )
        self._taken[workspace_id] += 1
        try:
            yield
        finally:
            self._taken[workspace_id] -= 1
            if not self._taken[workspace_id]:
                del self._taken[workspace_id]
