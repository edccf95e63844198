"""Packages, versions and products as they are shown."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from api.links import Links
from domain.package import Channel, ProductState, SourceKind
from infra.database.tables import PackageRow, PackageVersionRow, ProductRow
from infra.database.tables.columns import unix


class OciSource(TypedDict):
    """A chart in an OCI registry."""

    kind: Literal["oci"]
    oci_ref: str


class RepositorySource(TypedDict):
    """A chart in a chart repository; ours."""

    kind: Literal["repository"]
    repo_url: str
    chart: str


class PackageBody(TypedDict):
    """The contract's Package."""

    id: str
    html_url: str
    workspace_id: str
    name: str
    latest_version_id: str
    description: str | None
    display_image_url: str | None
    source: OciSource | RepositorySource
    created_at: int
    etag: str


class PackageVersionBody(TypedDict):
    """The contract's PackageVersion; `compatibility`, `channel` and `default_values` are ours."""

    id: str
    package_id: str
    semver: str
    ref: str
    input_schema: dict[str, Any]
    compatibility: dict[str, Any]
    channel: Channel
    default_values: dict[str, Any]
    published_at: int
    created_at: int
    etag: str


class ProductPackage(TypedDict):
    """Which package, and the version that its pin gives now; null: there is none."""

    id: str
    version_pin: dict[str, Any]
    default_version_id: str | None


class MarketplaceBody(TypedDict):
    """Whether every workspace may install the product."""

    published: bool


class ProductBody(TypedDict):
    """The contract's Product."""

    id: str
    html_url: str
    name: str
    workspace_id: str
    package: ProductPackage
    custom_image: NotRequired[str]
    custom_description: NotRequired[str]
    marketplace: MarketplaceBody
    created_at: int
    updated_at: int
    etag: str
    state: ProductState
    archived_at: NotRequired[int]
    archive_reason: NotRequired[str]


def package_body(row: PackageRow, *, links: Links) -> PackageBody:
    """Render a package that was created to its end."""
    return PackageBody(
        id=row.id,
        html_url=links.package(row.id),
        workspace_id=row.workspace_id,
        name=row.name,
        latest_version_id=row.latest_version_id or "",
        description=row.description,
        display_image_url=row.display_image_url,
        source=_source_of(row),
        created_at=unix(row.created_at),
        etag=str(row.version),
    )


def version_body(row: PackageVersionRow) -> PackageVersionBody:
    """Render a version."""
    return PackageVersionBody(
        id=row.id,
        package_id=row.package_id,
        semver=row.semver,
        ref=row.ref,
        input_schema=row.input_schema,
        compatibility=row.compatibility,
        channel=row.channel,
        default_values=row.default_values,
        published_at=unix(row.published_at),
        created_at=unix(row.created_at),
        # A version never changes, and so its etag does not.
        etag="1",
    )


def product_body(row: ProductRow, default_version_id: str | None, *, links: Links) -> ProductBody:
    """Render a product and the version that it gives now."""
    body = ProductBody(
        id=row.id,
        html_url=links.product(row.id),
        name=row.name,
        workspace_id=row.workspace_id,
        package=ProductPackage(
            id=row.package_id,
            version_pin=row.version_pin,
            default_version_id=default_version_id,
        ),
        marketplace=MarketplaceBody(published=row.marketplace_published),
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
        state=row.state,
    )
    if row.custom_image is not None:
        body["custom_image"] = row.custom_image
    if row.custom_description is not None:
        body["custom_description"] = row.custom_description
    if row.archived_at is not None:
        body["archived_at"] = unix(row.archived_at)
    if row.archive_reason is not None:
        body["archive_reason"] = row.archive_reason
    return body


def _source_of(row: PackageRow) -> OciSource | RepositorySource:
    if row.source_kind is SourceKind.OCI:
        return OciSource(kind="oci", oci_ref=row.source_url)
    return RepositorySource(kind="repository", repo_url=row.source_url, chart=row.chart)
