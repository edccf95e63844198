"""What requests say about packages and products."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from api.fields import PRINTABLE, TEXT, Body, JsonObject, check_visible
from domain.cluster import NetworkProfile
from domain.package import (
    ANY,
    LONGEST_SEMVER,
    SEMVER_PATTERN,
    is_kubernetes_version,
)

_LISTED: Final = 100


def _check_image(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = "This is no address of an image; write one that begins with https:// or http://."
        raise ValueError(message)
    return url


def _check_kubernetes(version: str) -> str:
    if not is_kubernetes_version(version):
        message = "This is no version of Kubernetes; write one such as 1.34 or 1.34.2."
        raise ValueError(message)
    return version


PackageName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=120, pattern=PRINTABLE),
    AfterValidator(check_visible),
]
ProductName = Annotated[
    str,
    StringConstraints(min_length=2, max_length=64, pattern=PRINTABLE),
    AfterValidator(check_visible),
]
ImageUrl = Annotated[
    str, StringConstraints(max_length=2048, pattern=PRINTABLE), AfterValidator(_check_image)
]
Semver = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_SEMVER, pattern=SEMVER_PATTERN)
]
ShortText = Annotated[str, StringConstraints(max_length=500, pattern=TEXT)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)]
_Words = Annotated[list[_Word], Field(max_length=_LISTED)]
_Url = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=PRINTABLE)]
_KubernetesVersion = Annotated[
    str, StringConstraints(min_length=1, max_length=20), AfterValidator(_check_kubernetes)
]


class HelmSourceRequest(Body):
    """The contract's CreatePackageHelmSource; a chart repository's `https://` is ours."""

    kind: Literal["helm"]
    repo_url: _Url
    chart: Annotated[str, StringConstraints(max_length=255, pattern=PRINTABLE)] = ""
    target_revision: Annotated[
        str, StringConstraints(min_length=1, max_length=256, pattern=PRINTABLE)
    ]
    path: Annotated[str, StringConstraints(max_length=2048, pattern=PRINTABLE)] = ""
    values: JsonObject = Field(default_factory=dict)


class CreatePackageRequest(Body):
    """A package to be made of one chart."""

    name: PackageName
    display_image_url: ImageUrl | None = None
    sources: Annotated[list[HelmSourceRequest], Field(min_length=1, max_length=1)]


class KubernetesRange(Body):
    """Both bounds are versions that fit; one of two numbers covers all of its patches."""

    minVersion: _KubernetesVersion | None = None  # noqa: N815 - the contract's name
    maxVersion: _KubernetesVersion | None = None  # noqa: N815 - the same


class Placement(Body):
    """Where the version may be; regions by id or name."""

    providers: Literal["any"] | _Words = ANY
    regions: Literal["any"] | _Words = ANY


class HostedClusters(Body):
    """What clusters that Bulkhead hosts must have."""

    networkProfile: Annotated[NetworkProfile, Field(strict=False)]  # noqa: N815 - the same


class Compatibility(Body):
    """The contract's: what a version needs of a cluster."""

    clusterTypes: _Words  # noqa: N815 - the same
    kubernetes: KubernetesRange
    placement: Placement
    kaas: HostedClusters | None = None


class CreatePackageVersionRequest(Body):
    """A version to be published.

    `ref` is a reference to the chart at the package's own place, or only a version, a tag or a
    digest there. An empty `input_schema` stands for the chart's own.
    """

    semver: Semver
    ref: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=PRINTABLE)]
    input_schema: JsonObject
    compatibility: Compatibility | None = None

    def stored_compatibility(self) -> dict[str, Any]:
        """Return what was said, as it was said."""
        if self.compatibility is None:
            return {}
        return self.compatibility.model_dump(mode="json", exclude_unset=True)


class ImportPackageRequest(Body):
    """A package to be made of a chart that is published, with its first version."""

    name: PackageName
    description: Annotated[str, StringConstraints(max_length=1000, pattern=TEXT)] | None = None
    display_image_url: ImageUrl | None = None
    oci_ref: Annotated[
        str, StringConstraints(min_length=1, max_length=2048, pattern=r"^oci://[^\s]+$")
    ]
    version: CreatePackageVersionRequest


class LatestPin(Body):
    """The newest release."""

    kind: Literal["latest"]


class VersionPin(Body):
    """One version."""

    kind: Literal["pinned"]
    version: Semver


Pin = Annotated[LatestPin | VersionPin, Field(discriminator="kind")]


class Marketplace(Body):
    """Whether every workspace may install the product."""

    published: bool


class CreateProductRequest(Body):
    """A product to be offered."""

    name: ProductName
    package_id: Annotated[str, StringConstraints(min_length=1, max_length=54, pattern=PRINTABLE)]
    package_version_pin: Pin
    custom_image: ImageUrl | None = None
    custom_description: ShortText | None = None
    marketplace: Marketplace | None = None


class ChangeProductRequest(Body):
    """What shall be different; what is absent stays, and null removes."""

    name: ProductName = ""
    package_version_pin: Pin | None = None
    custom_image: ImageUrl | None = None
    custom_description: ShortText | None = None
    marketplace: Marketplace | None = None


class ArchiveProductRequest(Body):
    """Why; its offers end with it in any case."""

    cascade_offers: bool = False
    archive_reason: ShortText | None = None


def pin_of(pin: LatestPin | VersionPin) -> dict[str, Any]:
    """Return a pin as it is stored and shown."""
    return pin.model_dump(mode="json")
