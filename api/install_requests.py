"""What requests say about installs and grants."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from api.fields import DIGEST, PRINTABLE, TEXT, TIME_OF_DAY, Body, JsonObject, RegionId
from domain.install import Consent
from domain.package import LONGEST_SEMVER, SEMVER_PATTERN, Channel, PinKind
from domain.windows import Window

# As Kubernetes counts labels' names and values, so that a label may become one of its.
_LABELS: Final = 32

_Id = Annotated[str, StringConstraints(min_length=1, max_length=55, pattern=PRINTABLE)]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=PRINTABLE)]
_LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=PRINTABLE)]
_Semver = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_SEMVER, pattern=SEMVER_PATTERN)
]
_Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=TEXT)]
_Message = Annotated[str, StringConstraints(max_length=255, pattern=TEXT)]
_Digest = Annotated[str, StringConstraints(pattern=DIGEST)]
_Channel = Annotated[Channel, Field(strict=False)]
_Consent = Annotated[Consent, Field(strict=False)]
_Moment = Annotated[int, Field(ge=0, le=253402300799)]
_Time = Annotated[str, StringConstraints(pattern=TIME_OF_DAY)]
_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

Labels = Annotated[dict[_Label, _LabelValue], Field(max_length=_LABELS)]


class VersionPinRequest(Body):
    """The contract's InstallPackageVersionPin: `version` is for `pinned`, and only for that."""

    kind: Annotated[PinKind, Field(strict=False)]
    version: _Semver | None = None


class GrantTermsRequest(Body):
    """That the vendor may move the install, and whether the customer is asked each time."""

    consent: _Consent = Consent.AUTOMATIC


class CreateInstallRequest(Body):
    """Either a product, or a package of one's own with a pin; from `labels` on it is ours.

    Without a cluster, one of the region is chosen.
    """

    product_id: _Id | None = None
    package_id: _Id | None = None
    package_version_pin: VersionPinRequest | None = None
    region_id: RegionId
    cluster_id: _Id | None = None
    initial_values: JsonObject = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    channel: _Channel = Channel.STABLE
    grant: GrantTermsRequest | None = None


class WindowRequest(Body):
    """When an install may be moved, by a clock; an end before the start is on the next day."""

    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=PRINTABLE)]
    days: Annotated[list[_Day], Field(min_length=1, max_length=7)]
    start: _Time
    end: _Time


def _checked_window(window: WindowRequest | None) -> WindowRequest | None:
    if window is not None:
        # A ValueError is a sentence about what is wrong.
        Window.from_json(window.model_dump())
    return window


class ChangeInstallRequest(Body):
    """What shall be different; what is absent stays. `values` are for the next render."""

    labels: Labels = Field(default_factory=dict)
    channel: _Channel = Channel.STABLE
    pinned_semver: _Semver | None = None
    update_window: Annotated[WindowRequest | None, AfterValidator(_checked_window)] = None
    drift_correction: bool = False
    values: JsonObject = Field(default_factory=dict)


class UpdateInstallVersionRequest(Body):
    """Which version of the install's package."""

    package_version_id: _Id


class RestoreInstallRequest(Body):
    """Which earlier render."""

    render_id: _Id


class AutomaticUpdatesRequest(Body):
    """Whether new versions of the install's channel come by themselves."""

    automatic_updates_enabled: bool


class CreateRenderRequest(Body):
    """A new rendering of the wanted version with the values as they are now."""

    message: _Message = ""
    skip_unchanged: bool | None = None
    extra_annotations: dict[str, str] = Field(default_factory=dict)


class ApproveRequest(Body):
    """What was looked at: the plan's digest."""

    digest: _Digest


class HoldRequest(Body):
    """Why nothing but its own people may move the install, and until when."""

    reason: _Reason
    until: _Moment | None = None


class CreateGrantRequest(GrantTermsRequest):
    """Which install."""

    install_id: _Id


class ConsentRequest(Body):
    """To which version."""

    package_version_id: _Id
