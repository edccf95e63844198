"""What one run of the demo tells: chapters, what was done, and how long each thing took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cli.client import ApiClient, JsonObject
from cli.follow import follow
from cli.output import Column, Output
from cli.progress import OperationProgress
from cli.text import clean, duration
from cli.waiting import OperationEndedError, title_of

_TIMES = (Column("STEP", "step"), Column("TOOK", "took", right=True))


class Story:
    """The output of the demo, and its times."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._chapters = 0
        self._times: list[tuple[str, float]] = []
        self._begin = time.monotonic()

    def chapter(self, title: str) -> None:
        """Begin a numbered chapter."""
        self._chapters += 1
        self.heading(f"{self._chapters}. {title}")

    def heading(self, title: str) -> None:
        """Print a heading that is not counted."""
        self.output.note()
        self.output.note((title, "bold cyan"))

    def done(self, sentence: str) -> None:
        """Say that something is as it should be."""
        self.output.note(("✓ ", "green"), clean(sentence))

    def found(self, noun: str, resource: JsonObject, how: str) -> None:
        """Say what a resource of the API is."""
        self.done(f"{noun} {clean(resource['name'])} {how} ({resource['id']})")

    def careful(self, sentence: str) -> None:
        """Say something that a person should not miss."""
        self.output.note((clean(sentence), "yellow"))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep how long the block took under this name."""
        begin = time.monotonic()
        yield
        self._times.append((name, time.monotonic() - begin))

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Keep how long the block took, and show meanwhile that it goes on.

        Nothing else may be printed in it.
        """
        with self.timed(what):
            if self.output.shows_live_progress:
                with self.output.progress_console.status(what):
                    yield
            else:
                yield

    def see_through(
        self, client: ApiClient, operation: JsonObject, subject: str, *, must_succeed: bool = True
    ) -> OperationProgress:
        """Show an operation live to its end, and keep what its steps took.

        Raises:
            OperationEndedError: it had to succeed and did not.
        """
        title = title_of(operation, subject)
        seen = follow(client, self.output, operation, title)
        self._times.append((title, seen.elapsed_seconds))
        self._times += [
            (f"  {step.name}", step.seconds) for step in seen.steps() if step.seconds is not None
        ]
        if must_succeed and seen.operation["state"] != "SUCCEEDED":
            raise OperationEndedError(seen.operation)
        return seen

    def show_times(self) -> None:
        """Print the table of what took how long."""
        times = [*self._times, ("altogether", time.monotonic() - self._begin)]
        rows = [{"step": name, "took": duration(seconds)} for name, seconds in times]
        self.output.listing(rows, _TIMES, ())
