"""Reads a chart's archive, which comes from somebody else: bounded, and nothing is unpacked."""

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.foreign_text import printable
from domain.json_document import check_document
from domain.semver import Range, Version
from infra.helm import go_yaml
from infra.helm.value_schemas import refused_schema

# What a registry may send; the largest charts that we know have 2 MB.
MAXIMUM_ARCHIVE_BYTES: Final = 16 * 1024 * 1024

# Helm's own bound of one file (5 MiB), and one for all: those that templates read are in memory.
_MAXIMUM_FILE_BYTES: Final = 5 * 1024 * 1024
_MAXIMUM_UNPACKED_BYTES: Final = 64 * 1024 * 1024
_MAXIMUM_FILES: Final = 10_000
_MAXIMUM_NESTING: Final = 4

# Parts of the path of a subchart's own file: charts/NAME/Chart.yaml.
_OF_A_SUBCHART: Final = 3

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_READ_BYTES: Final = 64 * 1024

# What no part of a path may be; a path that begins with `/` has an empty one.
_NO_PARTS: Final = frozenset({"", ".", ".."})

# Of what a chart says of itself, and every list of packages repeats: as much as the API takes.
_MAXIMUM_DESCRIPTION: Final = 1000
_MAXIMUM_APP_VERSION: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One version of a chart.

    Attributes:
        name: as the chart calls itself.
        semver: its version.
        digest: of the archive, `sha256:...`.
        ref: where exactly it came from, with a digest.
        archive: the gzipped tar, as it came.
        app_version: of what it deploys, as the chart says.
        kube_version: the range of Kubernetes versions that it asks for; empty: any.
        description: the chart's own.
        schema: of its values (`values.schema.json`); empty: it has none.
        default_values: its `values.yaml`.
    """

    name: str
    semver: str
    digest: str
    ref: str
    archive: bytes = field(repr=False)
    app_version: str = ""
    kube_version: str = ""
    description: str = ""
    schema: dict[str, Any] = field(default_factory=dict, repr=False)
    default_values: dict[str, Any] = field(default_factory=dict, repr=False)


def digest_of(content: bytes) -> str:
    """Return the digest of bytes, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read_archive(archive: bytes, ref: str) -> Chart:
    """Read what a chart says of itself, and see that Helm can be given the rest.

    Raises:
        BulkheadError: INVALID_ARGUMENT when it is no chart, too large, or holds what no chart
            should: links, paths that lead out of it, a schema that other addresses are read for.
    """
    files = files_of(archive)
    about = _mapping(files, "Chart.yaml")
    if about is None:
        raise _broken(why="it has no Chart.yaml")
    name, version = str(about.get("name", "")), str(about.get("version", ""))
    _check_metadata(about, name, version)
    _check_dependencies(about, files)
    for path, content in files.items():
        if path.rpartition("/")[2] == "values.schema.json":
            why = refused_schema(_schema_in(path, content))
            if why is not None:
                raise _broken(why=f"its {path} {why}")
    schema = files.get("values.schema.json")
    return Chart(
        name=name,
        semver=version,
        digest=digest_of(archive),
        ref=ref,
        archive=archive,
        app_version=printable(str(about.get("appVersion") or ""), _MAXIMUM_APP_VERSION),
        kube_version=str(about.get("kubeVersion") or ""),
        description=printable(str(about.get("description") or ""), _MAXIMUM_DESCRIPTION),
        schema={} if schema is None else _schema_in("values.schema.json", schema),
        default_values=_mapping(files, "values.yaml") or {},
    )


def files_of(archive: bytes) -> dict[str, bytes]:
    """Return a chart's files by their path inside it, those of packed subcharts among them.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as `read_archive`.
    """
    if len(archive) > MAXIMUM_ARCHIVE_BYTES:
        raise _broken(why=f"it has more than {MAXIMUM_ARCHIVE_BYTES:,} bytes")
    return dict(_unpacked(archive, _Room(), 0))


def with_file(files: Mapping[str, bytes], name: str, content: bytes) -> bytes:
    """Return the archive of a chart that has one more file in the folder `templates`.

    Args:
        files: of the chart, from `files_of`: a tar can be made that Helm reads differently, and so
            holds a schema that nobody checked.
        name: of the file.
        content: of the same.
    """
    every = {**files, f"templates/{name}": content}
    packed = _tar((f"chart/{path}", text) for path, text in every.items())
    return gzip.compress(packed, compresslevel=1, mtime=0)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files, the same bytes for the same files."""
    return gzip.compress(_tar(sorted(files.items())), compresslevel=6, mtime=0)


class _Room:
    """How much may still be unpacked."""

    def __init__(self) -> None:
        self.bytes_left = _MAXIMUM_UNPACKED_BYTES
        self.files_left = _MAXIMUM_FILES

    def take_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise _broken(why=f"it unpacks to more than {_MAXIMUM_UNPACKED_BYTES:,} bytes")

    def take_file(self, size: int) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise _broken(why=f"it has more than {_MAXIMUM_FILES:,} files")
        if size > _MAXIMUM_FILE_BYTES:
            raise _broken(why=f"a file in it has more than {_MAXIMUM_FILE_BYTES:,} bytes")


def _unpacked(archive: bytes, room: _Room, depth: int) -> Iterator[tuple[str, bytes]]:
    if depth > _MAXIMUM_NESTING:
        raise _broken(why=f"its subcharts are nested deeper than {_MAXIMUM_NESTING}")
    try:
        with tarfile.open(fileobj=io.BytesIO(_decompressed(archive, room))) as source:
            for path, content in _members(source, room):
                inside = path.partition("/")[2]
                if inside.startswith("charts/") and inside.endswith(".tgz"):
                    for nested, nested_content in _unpacked(content, room, depth + 1):
                        yield f"{inside.removesuffix('.tgz')}/{nested}", nested_content
                elif inside:
                    yield inside, content
    except (tarfile.TarError, UnicodeDecodeError, ValueError):
        raise _broken(why="it is no archive of files") from None


def _decompressed(archive: bytes, room: _Room) -> bytes:
    unpacked = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as source:
            while piece := source.read(_READ_BYTES):
                room.take_bytes(len(piece))
                unpacked += piece
    except (OSError, EOFError, zlib.error):
        raise _broken(why="it is not gzipped, or is cut off") from None
    return bytes(unpacked)


def _members(source: tarfile.TarFile, room: _Room) -> Iterator[tuple[str, bytes]]:
    for member in source:
        room.take_file(member.size)
        path = member.name.removeprefix("./")
        if member.isdir():
            continue
        # Helm takes `./` and `//` out of paths, and so finds subcharts at some that are none here.
        if not _NO_PARTS.isdisjoint(path.split("/")) or "\\" in path or ":" in path[:2]:
            raise _broken(why="it has a path that leads out of it, or is not as plain as it can be")
        if not member.isreg():
            raise _broken(why="it has a link or a device; a chart has files alone")
        content = source.extractfile(member)
        assert content is not None  # noqa: S101 - it is a regular file
        yield path, content.read()


def _check_metadata(about: dict[str, Any], name: str, version: str) -> None:
    if not _NAME.fullmatch(name):
        raise _broken(why="its Chart.yaml has no name that a chart may have")
    if not Version.parse(version).is_strict:
        raise _broken(why="its version is no semantic version such as 1.4.2")
    if str(about.get("apiVersion")) not in {"v1", "v2"}:
        raise _broken(why="its Chart.yaml has an apiVersion that is neither v1 nor v2")
    if (about.get("type") or "application") != "application":
        raise _broken(why="it is a library, which deploys nothing by itself")
    if about.get("kubeVersion"):
        Range.parse(str(about["kubeVersion"]))


def _check_dependencies(about: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Refuse a chart whose dependencies are not packed into it: Helm would not fetch them."""
    packed: set[str] = set()
    for path in files:
        parts = path.split("/")
        if len(parts) == _OF_A_SUBCHART and (parts[0], parts[-1]) == ("charts", "Chart.yaml"):
            found = _mapping(files, path) or {}
            packed.add(str(found.get("name", "")))
    dependencies = about.get("dependencies") or []
    if not isinstance(dependencies, list):
        raise _broken(why="its dependencies are no list")
    for dependency in dependencies:
        wanted = str(dependency.get("name", "")) if isinstance(dependency, dict) else ""
        if wanted not in packed:
            raise _broken(
                why=f"its dependency `{wanted}` is not packed into it; run `helm dependency "
                "update` before `helm package`"
            )


def _mapping(files: Mapping[str, bytes], path: str) -> dict[str, Any] | None:
    content = files.get(path)
    if content is None:
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _broken(why=f"its {path} is not UTF-8") from None
    found = go_yaml.load(text, what=f"The chart's {path}")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _broken(why=f"its {path} is no mapping")
    return found


def _schema_in(path: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content.decode("utf-8-sig"))
        if isinstance(found, dict):
            return check_document(found)
    except (ValueError, RecursionError):
        raise _broken(why=f"its {path} is no JSON, or none that can be stored") from None
    raise _broken(why=f"its {path} is no JSON object")


def _tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as target:
        for path, content in files:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            entry.mode = 0o644
            target.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _broken(*, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The chart cannot be used: {why}. Correct it and publish it once more.",
    )
