"""What is known of Hetzner Cloud without asking it."""

from typing import Final

from infra.clouds.profile import EngineCalls, Pace, Profile

PROFILE: Final = Profile(
    title="Hetzner",
    # It takes 3,600 calls an hour, and gives one a second back.
    pace=Pace(per_second=0.8, most=2400),
    engine=EngineCalls(start=1, change=3, look=1, poll_seconds=0.5),
)
