"""How long each activity of a rollout may take and how it is tried again, with the reasons."""

from datetime import timedelta
from typing import Final

from workflows.policies import BOOKKEEPING, Policy

# What it does is in rows, so that it is never given up: everything of a rollout depends on it.
ADVANCE: Final = Policy(timedelta(minutes=2), None, BOOKKEEPING.retry)

# Rows of a target. Not given up either: its operation runs, whoever looks.
DECIDE: Final = BOOKKEEPING

# Some thousand addresses, a hundred at a time, each for half a minute at most; ten for each
# install, and a worker that dies begins anew. Whoever stops the rollout ends it before.
CHECK: Final = Policy(timedelta(hours=6), None, BOOKKEEPING.retry)

# An operation of an install ends by itself: its steps have bounds. One that waits for a person may
# take days, and is waited for.
AWAIT: Final = Policy(timedelta(days=30), None, BOOKKEEPING.retry)
# It is not cancelled, and there are hundreds, each beat of which the server writes down: a worker
# that died is noticed within half a minute. Until then the operation goes on all the same.
AWAIT_HEARTBEAT: Final = timedelta(seconds=30)

# A rendering takes seconds; a host that is not there may come back.
PLAN: Final = Policy(timedelta(minutes=5), timedelta(hours=1), BOOKKEEPING.retry)

# Ten Services, of which one that hangs is asked for a minute. Given up soon: its row says that it
# was not looked at, and another one looks.
CHECK_SERVICES: Final = Policy(timedelta(minutes=15), timedelta(minutes=15), BOOKKEEPING.retry)

# Checks have times of their own, of an hour at most each. Not given up, because the target would
# stay as it is for ever: an emergency stop may hold them for days.
CHECK_IN_CLUSTER: Final = Policy(timedelta(hours=12), None, BOOKKEEPING.retry)
