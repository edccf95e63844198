"""Packages, their versions, products, and the registries from which charts come."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from domain.package import Channel, ProductState, RegistryAuthentication, SourceKind
from infra.database.tables.columns import enum_column, json_column, now_column, time_column


class RegistryConnectionRow(SQLModel, table=True):
    """A registry, and the secret with which it is asked; no credential is here."""

    __tablename__ = "registry_connections"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    name: str
    registry_url: str
    type: RegistryAuthentication = enum_column(RegistryAuthentication)
    secret_id: str
    is_active: bool = True
    last_used_at: datetime | None = time_column()
    created_at: datetime = now_column()


class PackageRow(SQLModel, table=True):
    """A chart at one place, `source_url`: `oci://...` with the chart's name, or a repository's URL.

    `chart` is the chart's name in a repository; empty for an OCI reference, which has it already.
    """

    __tablename__ = "packages"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    name: str
    description: str | None = None
    display_image_url: str | None = None
    source_kind: SourceKind = enum_column(SourceKind)
    source_url: str
    chart: str = ""
    latest_version_id: str | None = None
    active_operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class PackageVersionRow(SQLModel, table=True):
    """One version; nothing of it ever changes.

    `ref` is the reference with the digest that was resolved when it was published; `default_values`
    are what the package adds to the chart's own defaults.
    """

    __tablename__ = "package_versions"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    package_id: str
    semver: str
    # The order of semantic versions, as text that sorts.
    sort_key: str
    channel: Channel = enum_column(Channel)
    ref: str
    chart_digest: str
    input_schema: dict[str, Any] = json_column()
    default_values: dict[str, Any] = json_column()
    compatibility: dict[str, Any] = json_column()
    published_at: datetime = now_column()
    created_at: datetime = now_column()


class ProductRow(SQLModel, table=True):
    """What a workspace offers of a package. `version_pin` is the contract's PackageVersionPin."""

    __tablename__ = "products"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    package_id: str
    name: str
    version_pin: dict[str, Any] = json_column()
    custom_image: str | None = None
    custom_description: str | None = None
    marketplace_published: bool = False
    state: ProductState = enum_column(ProductState)
    archived_at: datetime | None = time_column()
    archive_reason: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()
