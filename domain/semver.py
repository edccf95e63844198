"""Semantic versions and ranges of them, by the rules that Helm uses for charts and Kubernetes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, total_ordering
from typing import Final, Self

from domain.errors import BulkheadError, Reason

LATEST: Final = "latest"

_MAXIMUM_CHARACTERS: Final = 128
_VERSION: Final = re.compile(
    r"v?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)
_STRICT: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:[-+].*)?")
_CONDITION: Final = re.compile(
    r"(=|!=|>=|=>|<=|=<|>|<|~>|~|\^)?\s*"
    r"(v?[0-9xX*]+(?:\.[0-9xX*]+){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)"
)
_HYPHEN: Final = re.compile(r"(\S+)\s+-\s+(\S+)")
_WILDCARDS: Final = frozenset("xX*")
# Major, minor and patch.
_ALL_NUMBERS: Final = 3


@total_ordering
@dataclass(frozen=True)
class Version:
    """One version; equal and ordered as the standard says, so that build metadata counts nothing.

    Attributes:
        text: as it was written.
    """

    text: str
    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a version; `v1.2` is taken for 1.2.0.

        Raises:
            BulkheadError: INVALID_ARGUMENT when it is none.
        """
        match = _VERSION.fullmatch(text) if len(text) <= _MAXIMUM_CHARACTERS else None
        if match is None:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT, "This is no semantic version; give one such as 1.4.2."
            )
        major, minor, patch, prerelease, _ = match.groups()
        return cls(
            text,
            int(major),
            int(minor or 0),
            int(patch or 0),
            tuple((prerelease or "").split(".")) if prerelease else (),
        )

    @property
    def is_strict(self) -> bool:
        """Whether it is written as the standard wants it: three numbers and no `v`."""
        return _STRICT.fullmatch(self.text) is not None

    @property
    def is_prerelease(self) -> bool:
        """Whether it comes before its release."""
        return bool(self.prerelease)

    @cached_property
    def sort_key(self) -> str:
        """Text that sorts, byte by byte (the collation "C"), as the versions do."""
        numbers = "".join(_sortable(number) for number in (self.major, self.minor, self.patch))
        if not self.prerelease:
            return f"{numbers}~"
        # `!` comes before all that an identifier may have, so that fewer of them come first.
        return numbers + "".join(f"!{_identifier(part)}" for part in self.prerelease)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.sort_key == other.sort_key

    def __lt__(self, other: "Version") -> bool:
        return self.sort_key < other.sort_key

    def __hash__(self) -> int:
        return hash(self.sort_key)


@dataclass(frozen=True, slots=True)
class _Condition:
    """From `low` on and below `high`; None: no bound on that side."""

    low: Version | None = None
    high: Version | None = None
    is_negated: bool = False
    names_prerelease: bool = False

    def allows(self, version: Version) -> bool:
        if version.is_prerelease and not self.names_prerelease:
            return False
        inside = (self.low is None or version >= self.low) and (
            self.high is None or version < self.high
        )
        return inside != self.is_negated


@dataclass(frozen=True, slots=True)
class Range:
    """Which versions are wanted: `^1.2`, `~1.2.3`, `>=1.20.0-0 <2`, `1.x || 3.x`, `1.2 - 1.4`.

    A pre-release is allowed only by conditions that name one.
    """

    text: str
    alternatives: tuple[tuple[_Condition, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a range; `latest`, `*` and nothing allow every release.

        Raises:
            BulkheadError: INVALID_ARGUMENT when it is none.
        """
        if len(text) > _MAXIMUM_CHARACTERS:
            raise _no_range()
        wanted = "*" if text.strip() in {"", LATEST} else text
        return cls(text, tuple(_conditions_in(part) for part in wanted.split("||")))

    def allows(self, version: Version) -> bool:
        """Tell whether a version is in the range."""
        return any(all(one.allows(version) for one in group) for group in self.alternatives)


def newest(versions: Iterable[Version], wanted: Range) -> Version | None:
    """Return the newest version in a range, None when there is none."""
    return max((version for version in versions if wanted.allows(version)), default=None)


def _sortable(number: int) -> str:
    digits = str(number)
    return f"{len(digits):02d}{digits}"


def _identifier(part: str) -> str:
    return f"0{_sortable(int(part))}" if part.isdigit() else f"1{part}"


def _no_range() -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        "This is no range of semantic versions; give one such as ^1.4 or >=1.2 <2.",
    )


def _conditions_in(text: str) -> tuple[_Condition, ...]:
    text = text.strip()
    if hyphen := _HYPHEN.fullmatch(text):
        return (_condition(">=", hyphen[1]), _condition("<=", hyphen[2]))
    found: list[_Condition] = []
    position = 0
    while position < len(text):
        match = _CONDITION.match(text, position)
        if match is None:
            raise _no_range()
        found.append(_condition(match[1] or "=", match[2]))
        position = match.end()
        # Conditions are separated by a comma or blanks.
        rest = text[position:]
        separator = len(rest) - len(rest.lstrip(", \t"))
        if rest and not separator:
            raise _no_range()
        position += separator
    if not found:
        raise _no_range()
    return tuple(found)


def _condition(operator: str, text: str) -> _Condition:
    base, given = _partial(text)
    # Where the versions that the text itself may mean end.
    after = _successor(base) if given == _ALL_NUMBERS else _next_after(base, given)
    match operator:
        case ">":
            low, high = after, None
        case ">=" | "=>":
            low, high = base, None
        case "<":
            low, high = None, base
        case "<=" | "=<":
            low, high = None, after
        case "~" | "~>":
            low, high = base, _next_after(base, min(given, _ALL_NUMBERS - 1))
        case "^":
            low, high = base, _next_after(base, _caret_place(base, given))
        case _:
            low, high = base if given else None, after
    return _Condition(low, high, operator == "!=", names_prerelease=base.is_prerelease)


def _partial(text: str) -> tuple[Version, int]:
    """Return the smallest version that a text may mean, and how many numbers it gives."""
    core, dash, rest = text.removeprefix("v").partition("-")
    numbers = core.partition("+")[0].split(".")
    given = next(
        (place for place, number in enumerate(numbers) if set(number) & _WILDCARDS), len(numbers)
    )
    plain = [number if place < given else "0" for place, number in enumerate(numbers)]
    try:
        return Version.parse(
            ".".join(plain) + (dash + rest if given == len(numbers) else "")
        ), given
    except BulkheadError:
        raise _no_range() from None


def _caret_place(base: Version, given: int) -> int:
    """Return which of the numbers a caret holds: the first that is not 0."""
    if base.major or given <= 1:
        return min(given, 1)
    if base.minor or given == _ALL_NUMBERS - 1:
        return _ALL_NUMBERS - 1
    return _ALL_NUMBERS


def _next_after(base: Version, place: int) -> Version | None:
    """Return the version at which one of the numbers is greater; None: there is no end."""
    match place:
        case 0:
            return None
        case 1:
            return _plain(base.major + 1, 0, 0)
        case 2:
            return _plain(base.major, base.minor + 1, 0)
        case _:
            return _plain(base.major, base.minor, base.patch + 1)


def _plain(major: int, minor: int, patch: int) -> Version:
    # Pre-releases of the end do not belong to what ends there.
    return Version(f"{major}.{minor}.{patch}-0", major, minor, patch, ("0",))


def _successor(base: Version) -> Version:
    """Return what comes next after a version."""
    if base.prerelease:
        return Version("", base.major, base.minor, base.patch, (*base.prerelease, "0"))
    return _plain(base.major, base.minor, base.patch + 1)
