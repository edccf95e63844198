"""Finds charts in OCI registries and chart repositories, and fetches them by digest."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urljoin, urlsplit

from domain.errors import BulkheadError, Reason
from domain.package import SourceKind
from domain.semver import LATEST, Range, Version, newest
from infra.helm import go_yaml
from infra.helm.archive import MAXIMUM_ARCHIVE_BYTES, Chart, digest_of, read_archive
from infra.helm.chart_cache import ChartCache
from infra.helm.logins import RegistryLogin
from infra.helm.registry_http import RegistryHttp
from infra.outbound import Outbound
from infra.settings import HelmSettings

_MAXIMUM_MANIFEST_BYTES: Final = 1024 * 1024
# The largest public index that we know has 25 MB.
_MAXIMUM_INDEX_BYTES: Final = 32 * 1024 * 1024
_MAXIMUM_TAG_PAGES: Final = 20
_TAGS_A_PAGE: Final = 1000

_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE: Final = "application/vnd.cncf.helm.config.v1+json"
_CHART_TYPE: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_REPOSITORY: Final = re.compile(r"[a-z0-9]+([._/-]+[a-z0-9]+)*")
_CHART_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NEXT: Final = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


@dataclass(frozen=True, slots=True)
class ChartSource:
    """Where the versions of a chart are.

    Attributes:
        kind: of the place.
        url: `oci://host[:port]/path/name`, or the address of a repository.
        chart: its name in a repository; empty for OCI, whose address ends in it.
    """

    kind: SourceKind
    url: str
    chart: str = ""

    @property
    def name(self) -> str:
        """The name that the chart must have."""
        return self.chart or self.url.rpartition("/")[2]


def parse_source(url: str, chart: str = "") -> ChartSource:
    """Read where a chart is.

    Raises:
        BulkheadError: INVALID_ARGUMENT when it is no address of a registry or repository.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise _no_source() from None
    if not _HOST.fullmatch(parts.netloc) or parts.query or parts.fragment or not has_port:
        raise _no_source()
    if parts.scheme == "oci":
        if chart or not _REPOSITORY.fullmatch(parts.path.removeprefix("/")):
            raise _no_source()
        return ChartSource(SourceKind.OCI, f"oci://{parts.netloc}{parts.path}")
    if parts.scheme not in {"https", "http"} or not _CHART_NAME.fullmatch(chart):
        raise _no_source()
    return ChartSource(SourceKind.REPOSITORY, url.rstrip("/"), chart)


class Charts:
    """Charts of anywhere; every one that was fetched is kept on this host.

    Every method raises `BulkheadError`: NOT_FOUND; INVALID_ARGUMENT for a chart that cannot be
    used; CREDENTIAL_REJECTED; DEPENDENCY_UNAVAILABLE when the registry does not answer as it
    should; FAILED_PRECONDITION for an address that may not be reached.

    Args:
        settings: where charts are kept, and how registries may be asked.
        outbound: decides which addresses may be reached.
    """

    def __init__(self, settings: HelmSettings, outbound: Outbound) -> None:
        self._settings = settings
        self._outbound = outbound
        self._cache = ChartCache(settings.cache_dir)

    async def resolve(
        self,
        source: ChartSource,
        version: str | None = None,
        login: RegistryLogin | None = None,
        *,
        expected_digest: str | None = None,
    ) -> Chart:
        """Return the chart that a version leads to now.

        Args:
            source: where it is.
            version: one version, a range, `latest` or None for the newest release, or a digest.
            login: to the registry.
            expected_digest: of the archive that this version had when it was published.

        Raises:
            BulkheadError: CONFLICT (cause `digest_changed`) when it has another one now.
        """
        place = self._place_of(source, login)
        ref, archive = await place.find(version or LATEST)
        chart = await self._read(archive, ref)
        if chart.name != source.name:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"What is there calls itself `{chart.name}`, not `{source.name}`. Correct the "
                "address, or the chart.",
            )
        if expected_digest is not None and chart.digest != expected_digest:
            raise _changed(chart.semver)
        return chart

    async def versions(
        self, source: ChartSource, login: RegistryLogin | None = None
    ) -> list[Version]:
        """Return the versions that there are, the newest first."""
        return sorted(await self._place_of(source, login).versions(), reverse=True)

    async def fetch(self, ref: str, digest: str, login: RegistryLogin | None = None) -> Chart:
        """Return a published chart: the very archive, or nothing.

        No tag is asked, so that what a tag says by now makes no difference.

        Args:
            ref: as `resolve` returned it.
            digest: of the archive.
            login: to the registry; not used when the archive is on this host.

        Raises:
            BulkheadError: CONFLICT (cause `digest_changed`) when there is another one now.
        """
        archive = await asyncio.to_thread(self._cache.read, digest)
        if archive is None:
            archive = await self._fetched(ref, login)
            if digest_of(archive) != digest:
                raise _changed(ref)
        return await self._read(archive, ref)

    def is_cached(self, digest: str) -> bool:
        """Tell whether an archive is on this host, so that no login is needed."""
        return self._cache.holds(digest)

    async def _read(self, archive: bytes, ref: str) -> Chart:
        chart = await asyncio.to_thread(read_archive, archive, ref)
        if not self._cache.holds(chart.digest):
            await asyncio.to_thread(self._cache.write, archive)
        return chart

    async def _fetched(self, ref: str, login: RegistryLogin | None) -> bytes:
        address, _, digest = ref.rpartition("@")
        if address.startswith("oci://"):
            place = self._place_of(parse_source(address), login)
            return (await place.find(digest))[1]
        http = RegistryHttp(self._settings, self._outbound, address, login)
        return (await http.get(address, maximum_bytes=MAXIMUM_ARCHIVE_BYTES)).content

    def _place_of(self, source: ChartSource, login: RegistryLogin | None) -> "_Place":
        if source.kind is SourceKind.REPOSITORY:
            http = RegistryHttp(self._settings, self._outbound, source.url, login)
            return _Repository(http, source)
        parts = urlsplit(source.url)
        is_plain = parts.netloc.lower() in self._settings.plain_http_registries
        origin = f"{'http' if is_plain else 'https'}://{parts.netloc}"
        http = RegistryHttp(self._settings, self._outbound, origin, login)
        return _OciRepository(http, source, origin)


class _Place(Protocol):
    async def find(self, version: str) -> tuple[str, bytes]:
        """Return the reference with a digest, and the archive, that a version leads to."""

    async def versions(self) -> list[Version]:
        """Return all versions that there are."""


class _OciRepository:
    def __init__(self, http: RegistryHttp, source: ChartSource, origin: str) -> None:
        self._http = http
        self._source = source
        self._url = f"{origin}/v2{urlsplit(source.url).path}"

    async def find(self, version: str) -> tuple[str, bytes]:
        reference = version if _DIGEST.fullmatch(version) else await self._tag_of(version)
        answer = await self._http.get(
            f"{self._url}/manifests/{reference}",
            maximum_bytes=_MAXIMUM_MANIFEST_BYTES,
            accept=_MANIFEST_TYPE,
        )
        digest = digest_of(answer.content)
        if _DIGEST.fullmatch(version) and digest != version:
            raise _changed(version)
        layer = _layer_in(_json(answer.content))
        blob = await self._http.get(
            f"{self._url}/blobs/{layer}", maximum_bytes=MAXIMUM_ARCHIVE_BYTES
        )
        if digest_of(blob.content) != layer:
            raise _not_what_it_says()
        return f"{self._source.url}@{digest}", blob.content

    async def versions(self) -> list[Version]:
        return _versions_of(tag.replace("_", "+") for tag in await self._tags())

    async def _tag_of(self, version: str) -> str:
        if _is_exact(version):
            return version.replace("+", "_")
        return _chosen(await self.versions(), version).text.replace("+", "_")

    async def _tags(self) -> list[str]:
        found: list[str] = []
        url = f"{self._url}/tags/list?n={_TAGS_A_PAGE}"
        for _ in range(_MAXIMUM_TAG_PAGES):
            answer = await self._http.get(url, maximum_bytes=_MAXIMUM_MANIFEST_BYTES)
            tags = _json(answer.content).get("tags") or []
            found += [tag for tag in tags if isinstance(tag, str)]
            following = _NEXT.search(answer.headers.get("link", ""))
            if following is None:
                break
            url = urljoin(url, following[1])
        return found


class _Repository:
    def __init__(self, http: RegistryHttp, source: ChartSource) -> None:
        self._http = http
        self._source = source

    async def find(self, version: str) -> tuple[str, bytes]:
        entry = self._entry_of(await self._entries(), version)
        addresses = entry.get("urls")
        if not isinstance(addresses, list) or not addresses:
            raise _not_what_it_says()
        # The first is the chart's; others are mirrors of it.
        address = urljoin(f"{self._source.url}/", str(addresses[0]))
        answer = await self._http.get(address, maximum_bytes=MAXIMUM_ARCHIVE_BYTES)
        digest = digest_of(answer.content)
        said = str(entry.get("digest") or "").removeprefix("sha256:")
        if said and digest != f"sha256:{said}":
            raise _not_what_it_says()
        return f"{address}@{digest}", answer.content

    async def versions(self) -> list[Version]:
        return _versions_of(str(entry.get("version", "")) for entry in await self._entries())

    async def _entries(self) -> list[Mapping[str, Any]]:
        answer = await self._http.get(
            f"{self._source.url}/index.yaml", maximum_bytes=_MAXIMUM_INDEX_BYTES
        )
        index = await asyncio.to_thread(_index_in, answer.content)
        entries = (index.get("entries") or {}).get(self._source.chart)
        if not isinstance(entries, list):
            raise BulkheadError(
                Reason.NOT_FOUND,
                f"The repository has no chart `{self._source.chart}`. Check its name.",
            )
        return [entry for entry in entries if isinstance(entry, dict)]

    @staticmethod
    def _entry_of(entries: Iterable[Mapping[str, Any]], version: str) -> Mapping[str, Any]:
        digest = version.removeprefix("sha256:") if _DIGEST.fullmatch(version) else None
        by_version = {str(entry.get("version", "")): entry for entry in entries}
        if digest is not None:
            for entry in by_version.values():
                if str(entry.get("digest", "")).removeprefix("sha256:") == digest:
                    return entry
            raise _no_version(version)
        if version in by_version:
            return by_version[version]
        if _is_exact(version):
            raise _no_version(version)
        return by_version[_chosen(_versions_of(by_version), version).text]


def _is_exact(version: str) -> bool:
    try:
        return Version.parse(version).is_strict
    except BulkheadError:
        return False


def _versions_of(texts: Iterable[str]) -> list[Version]:
    found: list[Version] = []
    for text in texts:
        try:
            found.append(Version.parse(text))
        except BulkheadError:
            # A tag may be anything, such as `latest` or a signature's.
            continue
    return found


def _chosen(versions: Iterable[Version], wanted: str) -> Version:
    found = newest(versions, Range.parse(wanted))
    if found is None:
        raise _no_version(wanted)
    return found


def _layer_in(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a chart's archive, as its manifest names it."""
    if (manifest.get("config") or {}).get("mediaType") != _CONFIG_TYPE:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "What is there is no Helm chart; push it with `helm push`.",
        )
    for layer in manifest.get("layers") or []:
        digest = str(layer.get("digest", ""))
        if layer.get("mediaType") == _CHART_TYPE and _DIGEST.fullmatch(digest):
            return digest
    raise _not_what_it_says()


def _json(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _not_what_it_says()
    return found


def _index_in(content: bytes) -> Mapping[str, Any]:
    found = go_yaml.load(content.decode(errors="replace"), what="The repository's index.yaml")
    if not isinstance(found, dict) or not isinstance(found.get("entries") or {}, dict):
        raise _not_what_it_says()
    return found


def _no_source() -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        "This is no address of a chart; give oci://host/path/name, or the https address of a chart "
        "repository and the chart's name.",
    )


def _no_version(wanted: str) -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND, f"There is no version of the chart that fits `{wanted}`; check it."
    )


def _changed(what: str) -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        f"The registry has another archive under {what} than the one that was published. A version "
        "never changes: publish the change under a new version, or put the old archive back.",
        metadata={"cause": "digest_changed"},
    )


def _not_what_it_says() -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        "The registry's answer does not fit together: what it describes is not what it has. Push "
        "the chart once more.",
    )
