"""What has been seen of a rollout: its waves, the installs worth a look, and its timeline."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.client import NO_RETRY, ApiClient, JsonObject, segment
from cli.install_waits import APPROVAL, waits_of
from cli.rollout_names import InstallNames, wave_in_words, wave_name
from cli.text import clean, duration, plural, remaining

ENDED = frozenset({"succeeded", "failed", "cancelled", "rolled_back"})

# Looked at in this order: what somebody can do something about comes first.
_WORTH_A_LOOK = ("failed", "waiting", "rolling_back", "moving", "baking")
# A target that ended keeps what it waited for at last.
UNDER_WAY = frozenset({"pending", "waiting", "moving", "baking", "rolling_back"})
# Of these the operation itself says more; None: it moves, as far as the rollout knows.
_VAGUE = frozenset({None, "busy", "operation"})
_OTHERS_APPROVAL = "approval_of_another"
# As many targets as fit on a screen under the waves.
MOST_TARGETS = 12
_EVENTS_A_PAGE = 100


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """What is in a target's way: why, and the command that helps.

    `is_customers`: only the customer can type it, where the install is not the vendor's own.
    """

    why: str
    command: str
    is_customers: bool = False


_OBSTACLES = {
    "offline": _Obstacle(
        "its cluster was not seen lately", "bulkhead clusters get {cluster}", True
    ),
    "window": _Obstacle(
        "its update window is closed", "bulkhead installs auto-update {install}", True
    ),
    "hold": _Obstacle("it is held", "bulkhead installs release {install}", True),
    "consent": _Obstacle(
        "nobody has agreed to this version for it",
        "bulkhead grants consent {install} {version}",
        True,
    ),
    "busy": _Obstacle("another operation is under way on it", "bulkhead installs get {install}"),
    "emergency_stop": _Obstacle("an emergency stop covers it", "bulkhead stops list"),
    "approval": _Obstacle(
        "its operation waits for an approval", "bulkhead installs approve {install}", True
    ),
    _OTHERS_APPROVAL: _Obstacle(
        "another operation on it waits for an approval",
        "bulkhead installs approve {install}",
        True,
    ),
    "operation": _Obstacle("its operation does not end", "bulkhead installs get {install}", True),
    "undo": _Obstacle(
        "it failed, and what was done cannot be undone yet",
        "bulkhead installs get {install}",
        True,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetView:
    """One install as it is shown.

    Attributes:
        name: how a person calls it.
        wave: its wave's name.
        state: the target's state.
        detail: why it is not further, and when it is tried again; may be empty.
        command: what to type about it; may be empty.
    """

    name: str
    wave: str
    state: str
    detail: str
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WaveView:
    """One wave as it is shown; `status` is that of a step of an operation.

    Attributes:
        name: what it is called.
        status: `completed` when each install of it has the version or was left out.
        targets: how many installs it has.
        moved: how many of them have the version for good.
        skipped: how many were left out.
        failed: how many did not get it.
        counts: all of them by their states.
    """

    name: str
    status: str
    targets: int
    moved: int
    skipped: int
    failed: int
    counts: JsonObject


class RolloutProgress:
    """What has been seen of one rollout.

    Args:
        client: the API, in the workspace of the vendor.
        rollout: as the API gave it.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        client: ApiClient,
        rollout: JsonObject,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._wall_clock = wall_clock
        self._names = InstallNames(client, rollout)
        self._cursor: str | None = None
        self.rollout = rollout
        self.targets: list[JsonObject] = []
        self.events: list[JsonObject] = []
        self.trouble = ""

    @property
    def path(self) -> str:
        """The place of the rollout in the API."""
        return f"/rollouts/{segment(self.rollout['id'])}"

    @property
    def done(self) -> bool:
        """Whether nothing more happens by itself and nobody is waited for."""
        return bool(self.rollout.get("done"))

    @property
    def elapsed_seconds(self) -> float:
        """How long it has been under way, or took."""
        end = self.rollout.get("completed_at")
        begin = self.rollout.get("created_at") or 0
        return (self._wall_clock() if end is None else end) - begin

    def refresh(self) -> list[JsonObject]:
        """Ask for the newest state; return the lines of the timeline that are new."""
        self.rollout = self._client.get(self.path, retry=NO_RETRY)
        counts = self.rollout.get("counts") or {}
        targets: list[JsonObject] = []
        for state in _WORTH_A_LOOK:
            room = MOST_TARGETS - len(targets)
            if room and counts.get(state):
                answer = self._client.get(
                    f"{self.path}/targets", retry=NO_RETRY, state=state, limit=room
                )
                targets += answer["data"]
        self.targets = self.with_waits(targets)
        return self._read_events()

    def with_waits(self, targets: Sequence[JsonObject]) -> list[JsonObject]:
        """Return targets with what their operations wait for, where only these say it yet."""
        vague = {
            target["install_id"]
            for target in targets
            if self._is_own(target)
            and target["state"] in UNDER_WAY
            and target.get("waiting_for") in _VAGUE
        }
        waits = waits_of(self._client, vague)
        return [
            {**target, "waiting_for": _obstacle_of(target, waits[target["install_id"]])}
            if target["install_id"] in vague & waits.keys()
            else target
            for target in targets
        ]

    @property
    def more_targets(self) -> int:
        """How many targets worth a look are not among those that are shown."""
        counts = self.rollout.get("counts") or {}
        whole: int = sum(counts.get(state, 0) for state in _WORTH_A_LOOK)
        return whole - len(self.targets)

    @property
    def notice(self) -> str:
        """What a person should know beside the waves; may be empty."""
        rollout = self.rollout
        if self.trouble:
            return self.trouble
        if rollout["state"] == "planned" and not self.done:
            whom = "somebody else than its creator" if self._is_gated else "you"
            what = "plan" if rollout.get("plan_only") else "version and waves"
            return (
                f"waits for an approval of its {what} by {whom}: bulkhead rollouts approve "
                f"{clean(rollout['id'])} --digest {clean(rollout.get('plan_digest'))}"
            )
        if rollout["state"] == "paused":
            return f"paused: bulkhead rollouts resume {clean(rollout['id'])}"
        return self.reason

    @property
    def reason(self) -> str:
        """Why it is in its state, with names for installs; may be empty."""
        return self.in_words(self.rollout.get("reason"))

    @property
    def baking(self) -> str:
        """How long the wave is still looked at; may be empty."""
        bake_until = self.rollout.get("bake_until")
        if self.rollout["state"] != "running" or not isinstance(bake_until, int):
            return ""
        left = bake_until - self._wall_clock()
        wave = wave_in_words(self.rollout, self.rollout["wave"])
        return f"looks at {wave} for another {duration(round(left))}" if left > 0 else ""

    def waves(self) -> list[WaveView]:
        """Return the waves as they stand."""
        # What could not be reached in its own wave has left it for one behind all others.
        return [self._wave(wave) for wave in self.rollout.get("waves") or () if wave["targets"]]

    def in_words(self, sentence: object) -> str:
        """Return a sentence of the API with names for the ids of installs."""
        return self._names.in_text(clean(sentence))

    def target_views(self) -> list[TargetView]:
        """Return the targets that are worth a look."""
        return [self.view_of(target) for target in self.targets]

    def view_of(self, target: JsonObject) -> TargetView:
        """Return a target with what is in its way and what helps."""
        detail, command = self._explained(target)
        return TargetView(
            name=self.name_of(target["install_id"]),
            wave=wave_name(self.rollout, target["wave"]),
            state=clean(target["state"]),
            detail=detail,
            command=command,
        )

    @property
    def _is_gated(self) -> bool:
        gate: str = (self.rollout.get("strategy") or {}).get("gate", "none")
        return gate != "none"

    def _explained(self, target: JsonObject) -> tuple[str, str]:
        if target.get("waiting_for"):
            waiting_for = clean(target["waiting_for"])
            obstacle = _OBSTACLES.get(waiting_for, _Obstacle(reason_to_wait(waiting_for), ""))
            is_own = self._is_own(target)
            install = clean(target["install_id"])
            command = obstacle.command.format(
                install=shlex.quote(self._names.typed(install)) if is_own else install,
                cluster=clean(target["cluster_id"]),
                version=clean(self.rollout["package_version_id"]),
            )
            if obstacle.is_customers and not is_own:
                command += "   (by its customer)"
            return f"{obstacle.why}{self._next_try(target)}", command
        error = target.get("last_error") or {}
        if error.get("message"):
            return self.in_words(error["message"]), ""
        if target["state"] in {"moving", "rolling_back"} and target.get("operation_id"):
            begun = target.get("started_at")
            return "" if begun is None else f"for {duration(self._wall_clock() - begun)}", ""
        return "", ""

    def _is_own(self, target: JsonObject) -> bool:
        """Whether an install is the vendor's own."""
        return bool(target.get("workspace_id") == self.rollout.get("workspace_id"))

    def _next_try(self, target: JsonObject) -> str:
        next_try = target.get("next_try_at")
        tries = target.get("attempts") or 0
        tried = f", tried {plural(tries, 'time')}" if tries else ""
        if not isinstance(next_try, int):
            return tried
        left = remaining(next_try, self._wall_clock())
        if target["state"] in {"moving", "rolling_back"}:
            return f"{tried}, its wave {'goes on' if left == 'over' else f'waits {left}'}"
        return f"{tried}, tried again {'now' if left == 'over' else f'in {left}'}"

    def _wave(self, wave: JsonObject) -> WaveView:
        counts = wave["counts"]
        moved, skipped = counts.get("succeeded", 0), counts.get("skipped", 0)
        begun = wave["targets"] - counts.get("pending", 0)
        current = wave["wave"] == self.rollout["wave"] and self.rollout["state"] not in ENDED
        back = counts.get("rolled_back", 0)
        if counts.get("failed") or (back and not self.rollout.get("rollback_requested_at")):
            status = "failed"
        elif back:
            # A person wanted that: it is no failure of the wave.
            status = "skipped"
        elif moved + skipped == wave["targets"] and not current:
            status = "completed" if moved else "skipped"
        elif begun or current:
            status = "running" if self.rollout["state"] not in ENDED else "skipped"
        else:
            status = "pending" if self.rollout["state"] not in ENDED else "skipped"
        return WaveView(
            name=wave_name(self.rollout, wave["wave"]),
            status=status,
            targets=wave["targets"],
            moved=moved,
            skipped=skipped,
            failed=counts.get("failed", 0),
            counts=counts,
        )

    def name_of(self, install: str) -> str:
        """Return how a person calls an install."""
        return self._names.shown(clean(install))

    def _read_events(self) -> list[JsonObject]:
        """Read the timeline on from the last whole page."""
        new: list[JsonObject] = []
        while True:
            answer = self._client.get(
                f"{self.path}/events", retry=NO_RETRY, limit=_EVENTS_A_PAGE, cursor=self._cursor
            )
            last = self.events[-1]["sequence"] if self.events else -1
            found = [event for event in answer["data"] if event["sequence"] > last]
            self.events += found
            new += found
            if not answer.get("has_more"):
                return new
            self._cursor = answer["next_cursor"]


def _obstacle_of(target: JsonObject, waiting_for: str) -> object:
    """Return what is in a target's way, when the operation under way on it waits for something."""
    is_another = target["state"] == "waiting"
    if waiting_for == APPROVAL:
        return _OTHERS_APPROVAL if is_another else APPROVAL
    return waiting_for if waiting_for in _OBSTACLES else target.get("waiting_for")


def reason_to_wait(code: str) -> str:
    """Return in words why installs wait, for the API's word for it."""
    obstacle = _OBSTACLES.get(code)
    return f"waits for: {clean(code)}" if obstacle is None else obstacle.why


def timeline(progress: RolloutProgress, events: Sequence[JsonObject]) -> list[str]:
    """Return the lines of a timeline, with the seconds since its beginning."""
    begin = progress.rollout.get("created_at") or 0
    return [_event_line(progress, event, begin) for event in events]


def _event_line(progress: RolloutProgress, event: JsonObject, begin: int) -> str:
    wave = event.get("wave")
    place = "" if wave is None else f"{wave_in_words(progress.rollout, wave)}: "
    place = place.removeprefix("the ")
    install = event.get("install_id")
    about = "" if install is None else f"{progress.name_of(install)}: "
    return f"+{event['at'] - begin:>5} s  {place}{about}{progress.in_words(event['message'])}"
