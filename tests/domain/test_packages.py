"""Versions in order, what they need of a cluster, and where charts and logins are."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BulkheadError
from domain.package import (
    ChartPlace,
    ClusterFacts,
    SourceKind,
    channel_of,
    incompatibility,
    is_semver,
)
from domain.registry import RegistryAddress, connection_for
from domain.semver import Version

_NUMBER = st.one_of(st.integers(0, 12), st.integers(0, 10**18 - 1)).map(str)
_WORD = st.from_regex(r"[0-9A-Za-z-]{0,3}[A-Za-z-][0-9A-Za-z-]{0,3}", fullmatch=True)
_IDENTIFIERS = st.lists(st.one_of(_NUMBER, _WORD), max_size=3)


@st.composite
def _versions(draw: st.DrawFn) -> str:
    core = ".".join(draw(_NUMBER) for _ in range(3))
    identifiers = draw(_IDENTIFIERS)
    build = draw(st.sampled_from(["", "+b1", "+2024.1"]))
    return core + ("-" + ".".join(identifiers) if identifiers else "") + build


def _precedence(one: str, other: str) -> int:  # noqa: PLR0911 - the clause has so many cases
    """Compare as semver.org's clause 11 says, in its own words."""
    (core, before), (core2, before2) = _parts(one), _parts(other)
    if core != core2:
        return -1 if core < core2 else 1
    if not before or not before2:
        return bool(before2) - bool(before)
    for each, each2 in itertools.zip_longest(before, before2):
        if each == each2:
            continue
        if each is None or each2 is None:
            return -1 if each is None else 1
        if each.isdigit() and each2.isdigit():
            return -1 if int(each) < int(each2) else 1
        if each.isdigit() != each2.isdigit():
            return -1 if each.isdigit() else 1
        return -1 if each < each2 else 1
    return 0


def _parts(version: str) -> tuple[list[int], list[str]]:
    core, _, before = version.partition("+")[0].partition("-")
    return [int(each) for each in core.split(".")], before.split(".") if before else []


@given(st.lists(_versions(), min_size=2, max_size=6))
def test_sort_keys_have_the_order_of_semantic_versions(versions: list[str]) -> None:
    keys = {version: Version.parse(version).sort_key.encode() for version in versions}
    ordered = sorted(versions, key=functools.cmp_to_key(_precedence))
    assert [keys[version] for version in ordered] == sorted(keys[version] for version in versions)
    for one, other in itertools.pairwise(ordered):
        assert (keys[one] == keys[other]) == (_precedence(one, other) == 0)
        assert is_semver(one)
        assert (channel_of(Version.parse(one)) == "edge") == bool(_parts(one)[1])


_CLUSTER = ClusterFacts(
    cluster_type="managed_kaas",
    kubernetes="v1.35.2",
    region_id="reg_1",
    region_name="falkenstein",
    providers=frozenset({"hcloud"}),
    network_profile="linux_cilium",
)


def _needs(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - parts of a body
    anywhere = {"providers": "any", "regions": "any"}
    return {"clusterTypes": ["managed_kaas"], "kubernetes": {}, "placement": anywhere, **more}


@pytest.mark.parametrize(
    ("compatibility", "said"),
    [
        ({}, None),
        (_needs(), None),
        (_needs(clusterTypes=[]), None),
        (_needs(clusterTypes=["imported_byoc"]), "clusters of the type imported_byoc"),
        (_needs(kubernetes={"minVersion": "1.35", "maxVersion": "1.35"}), None),
        (_needs(kubernetes={"minVersion": "1.35.3"}), "needs Kubernetes 1.35.3 or newer"),
        (_needs(kubernetes={"maxVersion": "v1.34"}), "needs Kubernetes v1.34 or older"),
        (_needs(placement={"providers": ["hcloud"], "regions": ["falkenstein"]}), None),
        (_needs(placement={"providers": "any", "regions": ["reg_1"]}), None),
        (_needs(placement={"providers": "any", "regions": ["reg_2"]}), "is in falkenstein"),
        (_needs(placement={"providers": ["aws"], "regions": "any"}), "has machines of hcloud"),
        (_needs(kaas={"networkProfile": "linux_cilium"}), None),
        (_needs(kaas={"networkProfile": "mixed_os_calico"}), "has linux_cilium"),
    ],
)
def test_a_version_says_why_it_does_not_fit_a_cluster(
    compatibility: dict[str, Any], said: str | None
) -> None:
    found = incompatibility(compatibility, _CLUSTER)
    assert (found is None) == (said is None)
    assert said is None or (found is not None and said in found)


def test_what_is_not_known_of_a_cluster_refuses_nothing() -> None:
    elsewhere = _needs(placement={"providers": ["aws"], "regions": "any"})
    assert incompatibility(elsewhere, replace(_CLUSTER, providers=frozenset())) is None
    imported = replace(_CLUSTER, cluster_type="imported_byoc")
    network = _needs(clusterTypes=[], kaas={"networkProfile": "mixed_os_calico"})
    assert incompatibility(network, imported) is None


def test_a_reference_leads_to_a_version_at_the_packages_own_place() -> None:
    place = ChartPlace.of("oci://registry.test:5000/charts/", "web")
    assert place == ChartPlace(SourceKind.OCI, "oci://registry.test:5000/charts/web")
    digest = "sha256:" + "0" * 64
    for ref, revision in (
        ("1.2.0", "1.2.0"),
        (digest, digest),
        (f"{place.url}:1.2.0", "1.2.0"),
        (f"{place.url}@{digest}", digest),
        (f"{place.url}:1.2.0@{digest}", digest),
    ):
        assert place.revision_in(ref) == revision
    for ref in (
        "oci://other.test:5000/charts/web:1.2.0",
        f"{place.url}-other:1.2.0",
        f"{place.url}/more:1.2.0",
        place.url,
        f"{place.url}:",
    ):
        with pytest.raises(BulkheadError):
            place.revision_in(ref)


@pytest.mark.parametrize(
    ("url", "chart"),
    [
        ("registry.test/web", ""),
        ("oci://registry.test", ""),
        ("oci://registry.test/web:1.2.0", ""),
        ("oci://registry.test/Web", ""),
        ("oci://user:password@registry.test/web", ""),
        ("oci://registry.test/../web", ""),
        ("https://charts.test", ""),
        ("https://charts.test?token=1", "web"),
        ("https://charts.test", "../web"),
        ("file:///etc", "web"),
        ("oci://[::1/web", ""),
    ],
)
def test_an_address_that_is_none_makes_no_package(url: str, chart: str) -> None:
    with pytest.raises(BulkheadError) as refused:
        ChartPlace.of(url, chart)
    assert "password" not in refused.value.message


class _Connection:
    def __init__(self, identifier: str, url: str) -> None:
        self.id, self.registry_url = identifier, url


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("oci://registry.test/charts/web", "charts"),
        ("https://registry.test:443/charts/web", "charts"),
        ("oci://registry.test/chartsmore/web", "host"),
        ("oci://REGISTRY.test/other", "host"),
        ("oci://registry.test:5000/charts/web", "port"),
        ("http://plain.test/charts", "plain"),
        ("https://plain.test:80/charts", None),
        ("https://other.test/charts", None),
    ],
)
def test_the_login_of_the_nearest_address_is_used(url: str, wanted: str | None) -> None:
    connections = [
        _Connection("host", "registry.test"),
        _Connection("charts", "https://registry.test/charts/"),
        _Connection("port", "http://registry.test:5000"),
        _Connection("plain", "http://plain.test"),
        _Connection("younger", "oci://registry.test/charts"),
    ]
    found = connection_for(url, connections)
    assert (None if found is None else found.id) == wanted


def test_what_is_given_for_https_is_not_sent_without_it() -> None:
    secure = RegistryAddress.parse("https://charts.test:8080")
    assert not secure.covers(RegistryAddress.parse("http://charts.test:8080/web"))
    assert secure.covers(RegistryAddress.parse("oci://charts.test:8080/web"))
