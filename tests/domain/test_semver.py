import pytest

from domain.errors import BulkheadError
from domain.semver import Range, Version, newest

_ORDER = [
    *("0.9.9", "1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1"),
    *("1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"),
    *("1.0.1-0", "1.2.0", "1.10.0", "2.0.0", "10.0.0"),
]
_SHUFFLED = sorted(_ORDER, key=lambda text: text[::-1])


def test_versions_and_their_sort_keys_are_ordered_as_the_standard_says() -> None:
    assert sorted(_SHUFFLED, key=Version.parse) == _ORDER
    assert sorted(_SHUFFLED, key=lambda text: Version.parse(text).sort_key) == _ORDER
    assert Version.parse("1.0.0+a") == Version.parse("v1.0.0+b")


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        ("^1.2", "1.2.0 1.9.9", "1.1.9 2.0.0 2.0.0-0 1.3.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.0.1 0.9.0", "1.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        (">=1.20.0-0", "1.36.3 1.20.0-gke.1 v1.21.3-eks-1", "1.19.9"),
        (">=1.20.0", "1.20.0", "1.21.0-alpha"),
        (">1.2", "1.3.0", "1.2.9 1.2.0"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2.9 1.0.0", "1.3.0"),
        ("<1.2", "1.1.9", "1.2.0"),
        (">= 1.2, < 2", "1.5.0", "2.0.0 1.1.0"),
        ("1.x || 3.x", "1.5.0 3.9.9", "2.0.0"),
        ("1.2 - 1.4", "1.2.0 1.4.9", "1.5.0"),
        ("!=1.2", "1.3.0", "1.2.9"),
        ("1.2.3", "1.2.3", "1.2.4 1.2.3-a"),
        ("1.2.3-rc.1", "1.2.3-rc.1", "1.2.3"),
        ("latest", "0.0.1 9.0.0", "1.0.0-rc.1"),
    ],
)
def test_a_range_allows_what_helm_would(wanted: str, inside: str, outside: str) -> None:
    found = Range.parse(wanted)
    assert [text for text in inside.split() if not found.allows(Version.parse(text))] == []
    assert [text for text in outside.split() if found.allows(Version.parse(text))] == []


def test_the_newest_version_of_a_range_is_found() -> None:
    versions = [Version.parse(text) for text in _ORDER]
    found = newest(versions, Range.parse("1.x"))
    assert found is not None
    assert found.text == "1.10.0"
    assert newest(versions, Range.parse("^7")) is None


@pytest.mark.parametrize("text", ["", "one", "1.2.3.4", "1..2", "-1", "1.0.0-", "9" * 200])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(BulkheadError):
        Version.parse(text)


@pytest.mark.parametrize("text", ["one", "^", "1.2.3.4", "|| ", "> =1", ">=1;<2", "1" * 200])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(BulkheadError):
        Range.parse(text)
