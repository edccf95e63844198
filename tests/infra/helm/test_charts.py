import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.helm.archive import digest_of, pack, read_archive
from infra.helm.charts import Charts, ChartSource, parse_source
from infra.helm.logins import BasicLogin, TokenLogin
from infra.helm.program import Helm
from infra.helm.releases import Release
from infra.outbound import Outbound
from infra.settings import HelmSettings, OutboundSettings
from infra.tools import ensure
from tests.charts import LOGIN, NAMES, Registry, archive, running_registry, running_repository

_LOGIN = BasicLogin(*LOGIN)
_LOOPBACK = OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8"]})


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with running_registry() as found:
        yield found


def charts_of(cache: Path, *registries: str, outbound: OutboundSettings = _LOOPBACK) -> Charts:
    settings = HelmSettings(
        program=ensure(("helm",))["helm"], cache_dir=cache, plain_http_registries=list(registries)
    )
    return Charts(settings, Outbound(outbound))


async def test_a_range_leads_to_the_newest_version_and_its_digest_to_the_same_archive(
    registry: Registry, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "1.10.1+build.7"):
        registry.push(archive("web", version))
    registry.push(archive("web", "1.2.0"), "latest")
    charts = charts_of(tmp_path, registry.address)
    source = parse_source(registry.url_of("web"))
    found = await charts.resolve(source, "~1.2")
    assert (found.name, found.semver, found.kube_version) == ("web", "1.2.0", ">=1.30.0-0")
    assert found.schema["properties"]["replicas"]["type"] == "integer"
    assert found.default_values["greeting"] == "hello"
    assert (await charts.resolve(source)).semver == "1.10.1+build.7"
    assert (await charts.resolve(source, "2.0.0-rc.1")).semver == "2.0.0-rc.1"
    newest = [version.text for version in await charts.versions(source)]
    assert newest == ["2.0.0-rc.1", "1.10.1+build.7", "1.10.0", "1.2.0", "1.0.0"]
    again = await charts_of(tmp_path / "other", registry.address).fetch(found.ref, found.digest)
    assert again.archive == archive("web", "1.2.0")
    with pytest.raises(BulkheadError) as refused:
        await charts.resolve(source, "^7")
    assert refused.value.reason is Reason.NOT_FOUND


async def test_a_tag_that_was_moved_is_refused_and_what_was_published_stays(
    registry: Registry, tmp_path: Path
) -> None:
    source = parse_source(registry.url_of("immutable"))
    registry.push(archive("immutable"))
    charts = charts_of(tmp_path, registry.address)
    published = await charts.resolve(source, "1.0.0")
    registry.push(archive("immutable", values={"greeting": "moved"}))
    with pytest.raises(BulkheadError) as refused:
        await charts.resolve(source, "1.0.0", expected_digest=published.digest)
    assert refused.value.reason is Reason.CONFLICT
    assert refused.value.metadata["cause"] == "digest_changed"
    elsewhere = charts_of(tmp_path / "other", registry.address)
    assert (await elsewhere.fetch(published.ref, published.digest)).archive == published.archive


async def test_a_repository_gives_the_same_chart_as_a_registry_and_notices_other_bytes(
    tmp_path: Path,
) -> None:
    charts = charts_of(tmp_path)
    with running_repository() as repository:
        repository.add(archive("web", "1.0.0"), archive("web", "1.1.0"))
        source = parse_source(repository.url, "web")
        found = await charts.resolve(source, "1.x")
        assert (found.semver, found.digest) == ("1.1.0", digest_of(archive("web", "1.1.0")))
        repository.replace(archive("web", "1.1.0", values={"replicas": 2}))
        with pytest.raises(BulkheadError) as refused:
            await charts.resolve(source, "1.1.0")
        assert refused.value.reason is Reason.INVALID_ARGUMENT
        with pytest.raises(BulkheadError) as refused:
            await charts_of(tmp_path / "other").fetch(found.ref, found.digest)
        assert refused.value.metadata["cause"] == "digest_changed"
    # It is down now, and what this host has is enough.
    assert (await charts.fetch(found.ref, found.digest)).archive == archive("web", "1.1.0")
    with pytest.raises(BulkheadError) as refused:
        await charts.resolve(source, "1.1.0")
    assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def all_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_a_login_is_needed_checked_and_stored_nowhere(tmp_path: Path) -> None:
    with (
        running_registry(asks_login=True) as registry,
        running_repository(asks_login=True) as repository,
    ):
        registry.push(archive("web"))
        repository.add(archive("web"))
        charts = charts_of(tmp_path, registry.address)
        for source in (
            parse_source(registry.url_of("web")),
            parse_source(repository.url, "web"),
        ):
            assert (await charts.resolve(source, login=_LOGIN)).semver == "1.0.0"
            for wrong in (None, BasicLogin(LOGIN[0], "other"), TokenLogin("other")):
                with pytest.raises(BulkheadError) as refused:
                    await charts.resolve(source, login=wrong)
                assert refused.value.reason is Reason.CREDENTIAL_REJECTED
    assert LOGIN[1] not in repr(_LOGIN)
    assert not [text for text in all_of(tmp_path) if LOGIN[1].encode() in text]


async def test_no_address_inside_the_network_is_reached_and_no_plain_http_beyond_this_machine(
    registry: Registry, tmp_path: Path
) -> None:
    registry.push(archive("web"))
    closed = charts_of(tmp_path, outbound=OutboundSettings())
    with pytest.raises(BulkheadError) as refused:
        await closed.resolve(parse_source(registry.url_of("web")))
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert "127.0.0.1" not in str(refused.value)
    metadata = ChartSource(
        parse_source("http://a.test", "web").kind, "http://169.254.169.254", "web"
    )
    with pytest.raises(BulkheadError) as refused:
        await charts_of(tmp_path).resolve(metadata)
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    public = charts_of(tmp_path, outbound=OutboundSettings())
    with pytest.raises(BulkheadError) as refused:
        await public.resolve(parse_source("http://1.1.1.1", "web"))
    assert "plain HTTP" in str(refused.value)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as target:
        for entry, content in entries:
            entry.size = len(content)
            target.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def file_of(path: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(path), content


_ABOUT = file_of("web/Chart.yaml", b"apiVersion: v2\nname: web\nversion: 1.0.0\n")


def about_of(more: str) -> tuple[tarfile.TarInfo, bytes]:
    return file_of(
        "web/Chart.yaml", f"apiVersion: v2\nname: web\nversion: 1.0.0\n{more}\n".encode()
    )


def link_of(path: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry, b""


def schema_of(schema: dict[str, object]) -> bytes:
    return tar_of(_ABOUT, file_of("web/values.schema.json", json.dumps(schema).encode()))


_POINTING = schema_of({"$ref": "http://169.254.169.254/"})

_BAD = {
    "no archive": b"something else",
    "cut off": archive("web")[:-100],
    "a bomb": gzip.compress(bytes(80 * 1024 * 1024), compresslevel=9),
    "no Chart.yaml": tar_of(file_of("web/values.yaml")),
    "a path that leads out": tar_of(_ABOUT, file_of("web/../../etc/passwd")),
    "an absolute path": tar_of(_ABOUT, file_of("/etc/passwd")),
    # Helm would find the subchart, and read what its schema points to.
    "a path that is not plain": tar_of(_ABOUT, file_of("web/./charts/sub.tgz", _POINTING)),
    "a symbolic link": tar_of(_ABOUT, link_of("web/values.yaml", "/etc/passwd")),
    "a large file": tar_of(_ABOUT, file_of("web/a", bytes(6 * 1024 * 1024))),
    "no version": tar_of(file_of("web/Chart.yaml", b"apiVersion: v2\nname: web\nversion: one\n")),
    "a schema of this machine": schema_of({"$ref": "file:///etc/hostname"}),
    "a schema of elsewhere": schema_of({"properties": {"a": {"$ref": "http://169.254.169.254/"}}}),
    "a missing subchart": tar_of(
        file_of(
            "web/Chart.yaml",
            b"apiVersion: v2\nname: web\nversion: 1.0.0\ndependencies: [{name: other}]\n",
        )
    ),
    "dependencies that are no list": tar_of(about_of("dependencies: 3")),
    "a version of the format that is no text": tar_of(about_of("apiVersion: [a]")),
    "a tag that does not fit its text": tar_of(
        _ABOUT, file_of("web/values.yaml", b"a: !!timestamp foo")
    ),
    "a NUL in its description": tar_of(about_of('description: "a\\0b"')),
    "a NUL in its schema": schema_of({"title": "\0"}),
    "half a character in its schema": schema_of({"title": "\ud800"}),
    "a schema with no number": schema_of({"maximum": float("inf")}),
    "a schema that is none": schema_of({"type": "nonsense"}),
    "a schema of a schema that is none": schema_of({"$schema": ["a"]}),
    "a bad subchart": tar_of(
        _ABOUT, file_of("web/charts/sub.tgz", tar_of(link_of("sub/values.yaml", "/etc/passwd")))
    ),
}


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
def test_what_is_no_sound_chart_is_refused(bad: bytes) -> None:
    with pytest.raises(BulkheadError) as refused:
        read_archive(bad, "")
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_what_a_chart_says_of_itself_is_kept_as_one_short_line() -> None:
    chart = read_archive(tar_of(about_of(f"description: {'a' * 5000}")), "")
    assert chart.description == "a" * 1000
    chart = read_archive(tar_of(about_of(r'description: "a\e]0;pwn\a\u202eb\nc"')), "")
    assert chart.description == "a ]0;pwn b c"


async def test_helm_gets_what_was_checked_however_a_tar_can_be_read(helm: Helm) -> None:
    # Go takes no paths from a header for all files, Python does: to one of them these are schemas.
    hides = tarfile.TarInfo.create_pax_global_header({"path": "web/README.md"})
    schema = json.dumps({"$ref": "file:///nowhere"}).encode()
    visible, hidden = (
        gzip.decompress(tar_of(one)) for one in (_ABOUT, file_of("web/values.schema.json", schema))
    )
    content = gzip.compress(visible[:1024] + hides + hidden)
    assert read_archive(content, "").schema == {}
    assert await helm.template(content, {}, Release("one", "one")) == []


def test_packages_of_the_same_files_are_the_same_bytes_and_subcharts_are_read() -> None:
    assert all(archive(name) == archive(name) for name in NAMES)
    parent = b"apiVersion: v2\nname: all\nversion: 1.0.0\ndependencies: [{name: web}]\n"
    chart = read_archive(
        pack({"all/Chart.yaml": parent, "all/charts/web-1.0.0.tgz": archive("web")}), "ref"
    )
    assert (chart.name, chart.schema, chart.default_values) == ("all", {}, {})


@pytest.mark.parametrize(
    "url",
    ["web", "ftp://a/b", "oci://a", "https://u:p@a", "https://a?b", "oci://a/B", "https://a:x"],
)
def test_what_is_no_address_of_a_chart_is_refused(url: str) -> None:
    with pytest.raises(BulkheadError):
        parse_source(url, "" if url.startswith("oci") else "web")
