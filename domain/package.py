"""Packages: a chart with its immutable versions, and what a version needs of a cluster."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from domain.cluster import ClusterProvider
from domain.errors import BulkheadError, Reason
from domain.registry import RegistryAddress
from domain.semver import Version


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


# What the contract says for `everywhere`.
ANY: Final = "any"

# The consumer that a registry connection is to its secret.
REGISTRY_CONNECTION_CONSUMER: Final = "registry_connection"

# As the contract has it, which is that of semver.org.
SEMVER_PATTERN: Final = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|[0-9A-Za-z-]*[A-Za-z-][0-9A-Za-z-]*)"
    r"(?:\.(?:0|[1-9]\d*|[0-9A-Za-z-]*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$"
)
LONGEST_SEMVER: Final = 128
_SEMVER: Final = re.compile(SEMVER_PATTERN, re.ASCII)


def is_semver(version: str) -> bool:
    """Tell whether a text is a semantic version of a length that is stored."""
    return len(version) <= LONGEST_SEMVER and _SEMVER.fullmatch(version) is not None


def channel_of(version: Version) -> Channel:
    """Return the channel of a version: a pre-release is for the edge."""
    return Channel.EDGE if version.is_prerelease else Channel.STABLE


@dataclass(frozen=True, slots=True)
class ChartPlace:
    """Where all versions of a chart are.

    Attributes:
        kind: how it is asked for.
        url: `oci://` with the chart's name, or the address of a chart repository.
        chart: its name in a repository; empty for an OCI reference.
    """

    kind: SourceKind
    url: str
    chart: str = ""

    @classmethod
    def of(cls, url: str, chart: str = "") -> Self:
        """Read an address; an OCI reference may give the chart's name apart.

        Raises:
            BulkheadError: INVALID_ARGUMENT.
        """
        address = RegistryAddress.parse(url)
        plain = url.rstrip("/")
        if "://" not in url:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "Say how the registry is reached: `oci://` for a registry, `https://` for a chart "
                "repository.",
            )
        if chart and not _CHART.fullmatch(chart):
            raise BulkheadError(Reason.INVALID_ARGUMENT, "This cannot be the name of a chart.")
        if address.scheme != "oci":
            if not chart:
                raise BulkheadError(
                    Reason.INVALID_ARGUMENT, "Name the `chart`: a repository has several."
                )
            return cls(SourceKind.REPOSITORY, plain, chart)
        if not address.path and not chart:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT, "This names a registry, and no chart in it."
            )
        named = f"{plain}/{chart}" if chart else plain
        if not _REPOSITORY.fullmatch(named.removeprefix("oci://").partition("/")[2]):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "A registry's repository has small letters, digits, `.`, `_`, `-` and `/`. Leave a "
                "tag or digest out here: the package is for all versions of the chart.",
            )
        return cls(SourceKind.OCI, named)

    def revision_in(self, ref: str) -> str:
        """Return the version, tag or digest that a reference to this chart names.

        Raises:
            BulkheadError: INVALID_ARGUMENT for a reference to another place, or one that names
                none.
        """
        if "://" not in ref:
            return ref
        base = f"{self.url}/{self.chart}" if self.chart else self.url
        rest = ref.removeprefix(base)
        if rest == ref or rest[:1] not in {":", "@"} or not rest[1:] or "/" in rest:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"A version of this package is at {base}: write that with `:` and a version or "
                "`@` and a digest, or only the version. For another place make another package.",
            )
        # With both, the digest is what counts.
        return rest.rpartition("@")[2] if "@" in rest else rest[1:]


_CHART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_REPOSITORY: Final = re.compile(r"[a-z0-9]+([._/-]+[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolveRequest:
    """What `ResolveChart` gets: which chart, for a request that waits.

    Attributes:
        workspace_id: whose registry connections are used.
        url: `oci://` with the chart's name, or the address of a chart repository.
        chart: its name in a repository; empty for an OCI reference.
        revision: a version, a tag, a range of versions or a digest.
        wants_schema: the answer shall have the schema of the chart's values.
    """

    workspace_id: str
    url: str
    chart: str
    revision: str
    wants_schema: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedChart:
    """What `ResolveChart` answers.

    Attributes:
        name: the chart's own.
        semver: its version.
        ref: the reference with the digest.
        digest: of the archive, as `sha256:<hex>`.
        description: of the chart; None: it has none.
        schema: of the chart's values; empty where it has none, or none was wanted.
    """

    name: str
    semver: str
    ref: str
    digest: str
    description: str | None = None
    schema: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterFacts:
    """What of a cluster a version may ask for.

    Attributes:
        cluster_type: hosted by Bulkhead, or a customer's own.
        kubernetes: the version of its API server, such as `1.35.2`; a `v` before it is ignored.
        region_id: where it is; `region_name` is accepted in a version's list too.
        providers: where its machines are, as far as that is known.
        network_profile: which pod network it has.
    """

    cluster_type: str
    kubernetes: str
    region_id: str
    region_name: str = ""
    providers: frozenset[str] = frozenset()
    network_profile: str = ""


def incompatibility(compatibility: Mapping[str, Any], cluster: ClusterFacts) -> str | None:
    """Return, as a sentence, why a version does not fit a cluster; None: it fits.

    Args:
        compatibility: the contract's; empty: the version fits every cluster.
        cluster: where it shall be installed.
    """
    types = compatibility.get("clusterTypes") or []
    if types and cluster.cluster_type not in types:
        return (
            f"It is for clusters of the type {_listed(types)}, and this is {cluster.cluster_type}."
        )
    placement = compatibility.get("placement") or {}
    return (
        _kubernetes_incompatibility(compatibility.get("kubernetes") or {}, cluster.kubernetes)
        or _region_incompatibility(placement.get("regions", ANY), cluster)
        or _provider_incompatibility(placement.get("providers", ANY), cluster.providers)
        or _network_incompatibility(compatibility.get("kaas") or {}, cluster)
    )


def _kubernetes_incompatibility(bounds: Mapping[str, Any], kubernetes: str) -> str | None:
    has = _numbers(kubernetes)
    least, most = bounds.get("minVersion") or "", bounds.get("maxVersion") or ""
    if least and has[: len(_numbers(least))] < _numbers(least):
        return f"It needs Kubernetes {least} or newer, and the cluster has {kubernetes}."
    if most and has[: len(_numbers(most))] > _numbers(most):
        return f"It needs Kubernetes {most} or older, and the cluster has {kubernetes}."
    return None


def _region_incompatibility(regions: str | Sequence[str], cluster: ClusterFacts) -> str | None:
    if regions == ANY or cluster.region_id in regions or cluster.region_name in regions:
        return None
    shown = cluster.region_name or cluster.region_id
    return f"It is for the regions {_listed(regions)}, and the cluster is in {shown}."


def _provider_incompatibility(providers: str | Sequence[str], found: frozenset[str]) -> str | None:
    others = [] if providers == ANY else sorted(found - set(providers))
    if not others:
        return None
    return (
        f"It is for machines of the providers {_listed(providers)}, and the cluster has machines "
        f"of {_listed(others)}."
    )


def _network_incompatibility(kaas: Mapping[str, Any], cluster: ClusterFacts) -> str | None:
    wanted = kaas.get("networkProfile")
    is_hosted = cluster.cluster_type == ClusterProvider.MANAGED_KAAS
    if not wanted or not is_hosted or wanted == cluster.network_profile:
        return None
    return f"It needs the network profile {wanted}, and the cluster has {cluster.network_profile}."


def _listed(names: str | Sequence[str]) -> str:
    return "none" if not names else ", ".join(names)


def is_kubernetes_version(text: str) -> bool:
    """Tell whether a text can be a bound of a Kubernetes range: `1.34`, or `v1.34.2`."""
    return re.fullmatch(r"v?\d{1,3}(\.\d{1,3}){0,2}", text, re.ASCII) is not None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; a bound of two of them covers every patch of it."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", version, re.ASCII)
    return () if found is None else tuple(int(each) for each in found.groups() if each is not None)
