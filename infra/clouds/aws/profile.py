"""What is known of AWS without asking it."""

import re
from typing import Final

from infra.clouds.profile import EngineCalls, Pace, Profile

PROFILE: Final = Profile(
    title="AWS",
    # A bucket for each action, of which the smallest that we need is RunInstances: 2 a second of
    # 1,000; our calls are of many kinds.
    pace=Pace(per_second=8, most=600),
    # What a VPC or an instance is, it asks in several calls.
    engine=EngineCalls(start=3, change=6, look=5, poll_seconds=5.0),
    # EC2's lists are copies that follow within seconds; its manual promises no time, and the sweep
    # finds what shows later than this.
    late_seconds=20.0,
    zone=re.compile(r".+-\d+[a-z]"),
    zone_example="eu-central-1a",
)
