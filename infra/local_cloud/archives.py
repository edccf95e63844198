"""Where this machine's own apt gets packages: the image comes from the same place."""

import platform
from dataclasses import dataclass

from domain.errors import BulkheadError, Reason
from infra.local_cloud.commands import execute, succeeds

_DISTRIBUTIONS = {"debian": "Debian", "ubuntu": "Ubuntu"}
# Parts of a release that a server has as well; others hold what is not released yet.
_POCKETS = ("", "-updates", "-security")
_FORMAT = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(ORIGIN)|$(COMPONENT)"


@dataclass(frozen=True, slots=True)
class Archives:
    """A release of a distribution, and how to get its packages.

    Attributes:
        suite: the release's code name, the one that this machine runs.
        sources: lines of a sources.list.
        options: apt's settings for going through a proxy, as `NAME "value";`.
    """

    suite: str
    sources: tuple[str, ...]
    options: tuple[str, ...]


def known() -> bool:
    """Whether apt has the package lists of this machine's distribution."""
    return succeeds("apt-get", "--version") and bool(_sources(_release()))


def read() -> Archives:
    """Read apt's configuration.

    Raises:
        BulkheadError: FAILED_PRECONDITION, when this is neither Debian nor Ubuntu, or apt has no
            package lists of it.
    """
    release = _release()
    sources = _sources(release)
    if not sources:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"apt knows no {release.get('ID', 'such')} {release.get('VERSION_CODENAME', '')}"
            f" packages; run `apt-get update` on Debian or Ubuntu.",
        )
    form = '%F "%v";%n'
    options = [
        line
        for scheme in ("http", "https")
        for line in execute("apt-config", "dump", "--format", form, f"Acquire::{scheme}").split(
            "\n"
        )
        if "Proxy" in line
    ]
    return Archives(release["VERSION_CODENAME"], tuple(sources), tuple(options))


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _sources(release: dict[str, str]) -> list[str]:
    origin = _DISTRIBUTIONS.get(release.get("ID", ""))
    suites = {release.get("VERSION_CODENAME", "") + pocket for pocket in _POCKETS}
    components: dict[tuple[str, str], list[str]] = {}
    listing = execute("apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages")
    for line in listing.splitlines():
        uri, suite, codename, from_whom, component = line.split("|")
        # Security archives differ in which of the two names carries the pocket.
        if from_whom == origin and suites & {suite, codename}:
            components.setdefault((uri, suite), []).append(component)
    return [
        f"deb {uri} {suite} {' '.join(dict.fromkeys(found))}"
        for (uri, suite), found in components.items()
    ]
