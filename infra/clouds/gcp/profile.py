"""What is known of Google Cloud without asking it."""

import re
from typing import Final

from infra.clouds.profile import EngineCalls, Pace, Profile

PROFILE: Final = Profile(
    title="Google Cloud",
    # 1,500 a minute of each kind.
    pace=Pace(per_second=10, most=900),
    engine=EngineCalls(start=1, change=3, look=1, poll_seconds=5.0),
    zone=re.compile(r".+\d-[a-z]"),
    zone_example="europe-west3-a",
)
