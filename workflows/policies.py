"""How long each kind of step may take and how it is tried again, with the reasons."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio.common import RetryPolicy

# The activity interceptor beats once a second for as long as the process lives, so a worker that
# was killed is noticed within this time and its step starts again elsewhere.
HEARTBEAT_TIMEOUT = timedelta(seconds=6)


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds of one kind of step.

    Attributes:
        attempt: how long one attempt may run.
        total: how long all attempts together may take; then the operation fails and unwinds.
            None: the step is never given up.
        retry: how attempts follow each other.
    """

    attempt: timedelta
    total: timedelta | None
    retry: RetryPolicy


_QUICKLY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
)

# One or a few calls to OpenBao or PostgreSQL: milliseconds when they answer. Ten minutes in total
# let a restart or an unseal by a person pass without failing the customer's request.
SERVICE_CALL = Policy(timedelta(seconds=30), timedelta(minutes=10), _QUICKLY)

# Files and processes of one control-plane host. Stopping waits for etcd, which takes up to 8 s.
HOST_CALL = Policy(timedelta(minutes=2), timedelta(minutes=10), _QUICKLY)

# A target that rotates with a secret, reached over a network: each attempt is a few calls with
# timeouts of their own. Four hours in total let a target be down for a while, and keep the steps
# that can be taken back well inside a rotation's deadline of a day.
ROTATOR_CALL = Policy(
    timedelta(minutes=2),
    timedelta(hours=4),
    RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        backoff_coefficient=2,
        maximum_interval=timedelta(minutes=1),
    ),
)

_PATIENTLY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(minutes=1),
)

# A provider's API: each attempt is some calls, and a removal waits until the thing is gone. Four
# hours in total let an hour's limit of calls and an outage of the provider pass.
CLOUD_CALL = Policy(timedelta(minutes=10), timedelta(hours=4), _PATIENTLY)

# A run of Pulumi: minutes, of which most is the provider's, after what an earlier attempt left was
# looked for. Its wait for a place on a worker counts as well: twenty machines at once take turns.
STACK_RUN = Policy(timedelta(minutes=45), timedelta(hours=6), _PATIENTLY)

# A registry: a chart is looked up and read, of at most some megabytes. Ten minutes in total let a
# registry restart; who named a wrong one wants to know.
REGISTRY_CALL = Policy(timedelta(minutes=2), timedelta(minutes=10), _QUICKLY)

# An API server that installs are applied to: each attempt asks for some hundred objects, or waits
# until some are gone. An hour in total lets a restart or a node's outage pass before what was begun
# is taken back.
CLUSTER_CALL = Policy(timedelta(minutes=5), timedelta(hours=1), _PATIENTLY)

# A chart that is not in this host's cache comes from its registry; rendering takes a second.
CHART_CALL = Policy(timedelta(minutes=5), timedelta(hours=1), _PATIENTLY)

# Helm with its hooks, which have a limit of their own that is shorter.
HELM_CALL = Policy(timedelta(hours=1), timedelta(hours=4), _PATIENTLY)

# Looks at a release until it is healthy, with a limit of its own that is shorter.
RELEASE_WAIT = Policy(timedelta(hours=2), timedelta(hours=4), _QUICKLY)

# From a server with a kept disk that was switched on to a node that is ready: a boot, and for one
# that slept for longer than an hour a new certificate.
RETURNED_WITHIN = timedelta(minutes=10)

# From a server that exists to the exchange of its token: a boot, and cloud-init. The token is good
# for an hour.
REGISTERED_WITHIN = timedelta(minutes=15)

# A control plane answers after about 5 s alone, and after 96 s when 20 start at once on two cores
# (`make bench`, fleet).
UNTIL_READY = Policy(timedelta(minutes=10), timedelta(minutes=15), _QUICKLY)

# A server reports its phases itself. What it installs is about 300 MB, which takes ten minutes on a
# slow line (4 Mbit/s), and a person may have to run the command again.
BOOTSTRAPPED_WITHIN = timedelta(minutes=15)

# From a kubelet that was started to its Node object, and from there to a ready node: seconds. Five
# minutes let the network or an image come late, and are as long as one wants to look at a problem.
JOINED_WITHIN = timedelta(minutes=5)
READY_WITHIN = timedelta(minutes=5)

# Four reports of a server; a restart of its services then takes seconds. Both together are the five
# minutes after which a repair has failed.
RESTARTED_WITHIN = timedelta(minutes=2)
REPAIRED_WITHIN = timedelta(minutes=3)

# PodDisruptionBudgets are honoured for so long. Whoever cannot free a pod within five minutes wants
# to be asked, and a server that shall go must be able to.
DRAINED_WITHIN = timedelta(minutes=5)

# Storage drivers detach within a minute; kubelets that are gone never do.
DETACHED_WITHIN = timedelta(minutes=5)

# Two reports of a server: one that is off or cut off is not waited for.
UNINSTALLED_WITHIN = timedelta(minutes=1)


def until(deadline: timedelta) -> Policy:
    """Return the bounds of a step that keeps its deadline itself and says what was missing.

    The slack is for attempts that ended with their worker, and for its return.
    """
    return Policy(deadline + timedelta(minutes=5), deadline + timedelta(minutes=15), _QUICKLY)


# Waits for another operation to unwind, which may itself wait for a dependency to come back.
UNTIL_UNWOUND = Policy(timedelta(hours=1), None, _QUICKLY)

# While an emergency stop is in force its operations wait without a bound, and ask for its end: soon
# at first, then rarely enough that a thousand of them are no load.
WHILE_HELD = Policy(
    timedelta(seconds=30),
    None,
    RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        backoff_coefficient=1.2,
        maximum_interval=timedelta(seconds=5),
    ),
)

# Rows that must be written for an operation to end: never given up, because a lock depends on it.
BOOKKEEPING = Policy(timedelta(seconds=30), None, _QUICKLY)

# An undo, or a step of an operation that only goes forward, is tried until it succeeds: giving up
# would leave something behind. A permanent error is shown on the operation, and tried again after
# this pause in case a person mends the cause. The pauses grow, as `workflows.pauses` says.
PAUSE_AFTER_PERMANENT_ERROR = timedelta(seconds=5)
DOUBLED_UP_TO = timedelta(minutes=10)
