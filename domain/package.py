"""Packages: a chart with its immutable versions, and what a version needs of a cluster."""

from enum import StrEnum


class SourceKind(StrEnum):
    """Where a package's charts come from.

    Attributes:
        OCI: an OCI registry, such as `oci://registry.example.com/charts/web`.
        REPOSITORY: a Helm chart repository with an index, such as `https://charts.example.com`.
    """

    OCI = "oci"
    REPOSITORY = "repository"


class PinKind(StrEnum):
    """Which version of a package a product offers."""

    LATEST = "latest"
    PINNED = "pinned"


class ProductState(StrEnum):
    """The contract's published states."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class RegistryAuthentication(StrEnum):
    """How a registry connection proves itself; the contract's published types."""

    BASIC = "basic"
    TOKEN = "token"  # noqa: S105 - the name of a type
    OAUTH = "oauth"


class Channel(StrEnum):
    """Which versions an install may get by itself.

    Attributes:
        STABLE: releases.
        EDGE: releases and pre-releases.
    """

    STABLE = "stable"
    EDGE = "edge"
