"""What is known of a provider without asking it: `PROFILE` in the `profile` module of its folder.

Nothing here loads a provider's library: the web process reads profiles too.
"""

import re
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast an account may be asked.

    Attributes:
        per_second: calls that come back to the budget.
        most: how many it holds.
    """

    per_second: float
    most: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineCalls:
    """About how many calls a provider's Pulumi program makes: nobody can count them from outside.

    Attributes:
        start: before anything else, of a program that starts.
        change: to make, change or remove one resource, and to look at what came of it.
        look: to look at one resource.
        poll_seconds: how long it waits between two looks at something that goes on.
    """

    start: int
    change: int
    look: int
    poll_seconds: float

    def polls(self, seconds: float) -> int:
        """Return how often it looks at something that goes on for so long."""
        return ceil(seconds / self.poll_seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One provider.

    Attributes:
        title: what people call it.
        pace: of one account; a part of what the provider allows, so that others have some too.
        engine: what its Pulumi program asks.
        late_seconds: for how long an account may tell nothing of what was made last.
        zone: what names a place, where machines are in zones; None: any name may be one.
        zone_example: one of them.
    """

    title: str
    pace: Pace
    engine: EngineCalls
    late_seconds: float = 0.0
    zone: re.Pattern[str] | None = None
    zone_example: str = ""
