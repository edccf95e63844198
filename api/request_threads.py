"""The threads in which requests do what blocks, above all ask OpenBao.

A server that hangs, instead of being down, keeps each thread for as long as its calls may take.
Requests beyond must not queue up behind them: who finds no thread soon is told so, and the rest of
the API goes on.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final, ParamSpec, TypeVar

from domain.errors import BulkheadError, Reason

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# A call takes milliseconds of a healthy server, and waits for an answer most of the time.
THREADS: Final = 32
BEGINS_WITHIN_SECONDS: Final = 2.0


class RequestThreads(ThreadPoolExecutor):
    """The default executor of the API's event loop: `asyncio.to_thread` goes through it.

    Args:
        loop: the event loop, from which alone work is given.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(THREADS, thread_name_prefix="request")
        self._loop = loop
        self._unfinished = 0
        self._lock = Lock()

    def submit(
        self,
        fn: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> "Future[_Result]":
        """Do the work in a thread; it fails with DEPENDENCY_UNAVAILABLE when none is free soon."""
        answer: Future[_Result] = Future()

        def work() -> None:
            try:
                if answer.set_running_or_notify_cancel():
                    answer.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is the answer, whatever it is
                answer.set_exception(error)
            finally:
                self._count(-1)

        def refuse() -> None:
            if waiting.cancel():
                self._count(-1)
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(_busy())

        must_wait = self._count(1) > THREADS
        waiting = super().submit(work)
        if must_wait:
            self._loop.call_later(BEGINS_WITHIN_SECONDS, refuse)
        return answer

    def _count(self, change: int) -> int:
        with self._lock:
            self._unfinished += change
            return self._unfinished


def _busy() -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"All {THREADS} threads of this process wait for something else, most likely for a secret "
        "store that does not answer. Try again in a moment.",
        metadata={"dependency": "openbao"},
    )
