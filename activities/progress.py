"""How far an activity is that takes minutes: noted by it, carried on by the interceptor's beat."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Progress:
    """The newest of one attempt.

    Attributes:
        message: a sentence for a person, shown with the step.
        details: for the next attempt and for who looks into Temporal; part of each heartbeat.
    """

    message: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


current_progress: ContextVar[Progress | None] = ContextVar("current_progress", default=None)


def note_progress(message: str, **details: Any) -> None:  # noqa: ANN401 - JSON
    """Say how far the activity at hand is; shown within a second or two."""
    progress = current_progress.get()
    if progress is not None:
        progress.message, progress.details = message, details
