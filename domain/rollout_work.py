"""What the workflows of a rollout hand to each other: ids and what to do next, nothing else."""

from dataclasses import dataclass, field
from enum import StrEnum

# The workflow that drives a rollout, as `infra/` starts it.
RUN_ROLLOUT_WORKFLOW = "RunRollout"


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutPlace:
    """Which rollout: its row is in the vendor's workspace."""

    workspace_id: str
    rollout_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetPlace:
    """Which target of which rollout."""

    rollout: RolloutPlace
    install_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRun:
    """What one run of a rollout's workflow begins with.

    Attributes:
        place: the rollout.
        turns: how many turns of targets it knows of; see `Step`.
    """

    place: RolloutPlace
    turns: int = 0


class Verb(StrEnum):
    """What is done to a target; also a part of its workflow's id."""

    PLAN = "plan"
    MOVE = "move"
    CHECK = "check"
    ROLL_BACK = "roll-back"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A target whose turn it is. `host` is where its control plane runs."""

    install_id: str
    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What the workflow of a rollout does next, as the rows ask for it.

    Attributes:
        verb: what is done to each of the claims.
        claims: the targets whose turn it is.
        check: the targets that bake are looked at.
        look_again_seconds: how long nothing is to be done, if nobody asks for anything; 0: look
            again at once.
        busy: something that was begun goes on; its end is worth a look before that time.
        ended: the rollout is over.
        turns: how many turns were given out so far. Who looks next says how many it knows of: when
            a step was lost with its worker, the turns in it are given out again at once.
    """

    verb: Verb = Verb.MOVE
    claims: list[Claim] = field(default_factory=list)
    check: bool = False
    look_again_seconds: float = 0.0
    busy: bool = False
    ended: bool = False
    turns: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """An operation of an install that was planned for a target.

    Attributes:
        place: the target.
        customer_workspace_id: where the operation runs.
        operation_id: the operation.
        host: where the install's control plane runs.
        checks_in_cluster: the target is looked at from that host before it bakes.
    """

    place: TargetPlace
    customer_workspace_id: str
    operation_id: str
    host: str
    checks_in_cluster: bool = False
