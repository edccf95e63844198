"""What requests say about rollouts: which installs, and how a version spreads over them."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from api.fields import PRINTABLE, Body, RegionId
from domain.identifiers import Prefix, is_id
from domain.package import Channel
from domain.rollout import Gate
from domain.rollout_strategy import leads_elsewhere

# More waves than this are a list, not a plan that a person has decided on.
_MAXIMUM_WAVES: Final = 50
# As many installs as a rollout is measured with.
_MAXIMUM_TARGETS: Final = 5000
# Each install that moves has a workflow, a Helm program and the memory of its objects.
_MAXIMUM_CONCURRENCY: Final = 100
_MAXIMUM_CHECKS: Final = 10
_DAY_SECONDS: Final = 86400


def _check_segments(path: str) -> str:
    if leads_elsewhere(path):
        message = "A path has no segments that are `.` or `..`, encoded or not."
        raise ValueError(message)
    return path


_Id = Annotated[str, StringConstraints(min_length=1, max_length=55, pattern=PRINTABLE)]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=PRINTABLE)]
_LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=PRINTABLE)]
# The names of a Service and of a port, as Kubernetes has them.
_DnsName = Annotated[
    str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
_HttpPath = Annotated[
    str,
    StringConstraints(max_length=500, pattern=r"^/[\x21-\x7e]*$"),
    AfterValidator(_check_segments),
]
_Url = Annotated[str, StringConstraints(max_length=500, pattern=r"^https?://[\x21-\x7e]+$")]
_Port = Annotated[int, Field(ge=1, le=65535)] | _DnsName
# A script has lines; NUL can be neither stored nor given to a program.
_Argument = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]
_Seconds = Annotated[int, Field(ge=1, le=3600)]


class ShareRequest(Body):
    """So many, or so many of a hundred."""

    count: Annotated[int, Field(ge=0, le=_MAXIMUM_TARGETS)] | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.count is None) == (self.percent is None):
            message = "Give either count or percent."
            raise ValueError(message)
        return self


class WaveRequest(ShareRequest):
    """How large a wave is; a share is one of all that are no canary."""

    @model_validator(mode="after")
    def _check_some(self) -> Self:
        if 0 in (self.count, self.percent):
            message = "A wave has at least one install."
            raise ValueError(message)
        return self


class ErrorBudgetRequest(ShareRequest):
    """How many installs of a wave may fail before the wave has failed."""


class WorkloadCheck(Body):
    """The install's objects are healthy at the end of the bake time."""

    kind: Literal["workload"]


class _PlaceToAsk(Body):
    """A Service of the install, or an address outside.

    `$install_id`, `$cluster_id` and `$region_id` in an address stand for the target's.
    """

    service: _DnsName | None = None
    port: _Port | None = None
    path: _HttpPath = "/"
    url: _Url | None = None

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        by_service = self.service is not None and self.port is not None
        if by_service == (self.url is not None) or (self.service is None) != (self.port is None):
            message = "Give either service and port, or url."
            raise ValueError(message)
        return self


class HttpCheck(_PlaceToAsk):
    """A GET is answered with a status."""

    kind: Literal["http"]
    status: Annotated[int, Field(ge=100, le=599)] = 200


class MetricCheck(_PlaceToAsk):
    """The first sample that a Prometheus answers compares as it should."""

    kind: Literal["metric"]
    query: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=PRINTABLE)]
    comparison: Literal["<", "<=", ">", ">=", "=="]
    threshold: Annotated[float, Field(strict=False, allow_inf_nan=False)]


class JobCheck(Body):
    """A Job in the install's namespace succeeds."""

    kind: Literal["job"]
    image: Annotated[
        str, StringConstraints(min_length=1, max_length=500, pattern=r"^[\x21-\x7e]*$")
    ]
    command: Annotated[list[_Argument], Field(max_length=50)] = Field(default_factory=list)
    timeout_seconds: _Seconds = 300


Check = Annotated[WorkloadCheck | HttpCheck | MetricCheck | JobCheck, Field(discriminator="kind")]


def _default_checks() -> list[Check]:
    return [WorkloadCheck(kind="workload")]


class StrategyRequest(Body):
    """How a version spreads."""

    canary: Annotated[int, Field(ge=0, le=100)] = 1
    waves: Annotated[list[WaveRequest], Field(min_length=1, max_length=_MAXIMUM_WAVES)] = Field(
        default_factory=lambda: [WaveRequest(percent=100)]
    )
    concurrency: Annotated[int, Field(ge=1, le=_MAXIMUM_CONCURRENCY)] = 5
    bake_seconds: Annotated[int, Field(ge=0, le=7 * _DAY_SECONDS)] = 60
    error_budget: ErrorBudgetRequest = ErrorBudgetRequest(count=0)
    checks: Annotated[list[Check], Field(max_length=_MAXIMUM_CHECKS)] = Field(
        default_factory=_default_checks
    )
    gate: Annotated[Gate, Field(strict=False)] = Gate.NONE
    automatic_rollback: bool = True
    deadline_seconds: Annotated[int, Field(ge=60, le=30 * _DAY_SECONDS)] = _DAY_SECONDS


class SelectorRequest(Body):
    """Which of the product's installs; what is absent bounds nothing."""

    regions: Annotated[list[RegionId], Field(max_length=100)] = Field(default_factory=list)
    labels: Annotated[dict[_Label, _LabelValue], Field(max_length=20)] = Field(default_factory=dict)
    channel: Annotated[Channel, Field(strict=False)] | None = None
    install_ids: Annotated[list[_Id], Field(max_length=_MAXIMUM_TARGETS)] = Field(
        default_factory=list
    )

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        if not all(is_id(Prefix.INSTALL, one) for one in self.install_ids):
            message = "Each of install_ids is the id of an install, inst_..."
            raise ValueError(message)
        return self


class CreateRolloutRequest(Body):
    """One version of a product, to be brought to the installs that granted it."""

    product_id: _Id
    package_version_id: _Id
    selector: SelectorRequest = SelectorRequest()
    strategy: StrategyRequest = StrategyRequest()
    plan_only: bool = False


class ApproveRolloutRequest(Body):
    """The digest of the plan that was looked at; another one is refused."""

    digest: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]
