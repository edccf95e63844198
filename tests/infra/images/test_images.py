import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.images import IMAGE_PROGRAMS, ImageReferences, ImageSet


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in IMAGE_PROGRAMS:
        found[name] = tmp_path / name
        found[name].write_bytes(name.encode() * 1000)
    return found


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def image_set(directory: Path) -> ImageSet:
    return ImageSet(directory / "storage", directory / "images.json")


def blobs(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in directory.rglob("data")}


@pytest.mark.usefixtures("umask")
def test_the_same_programs_make_the_same_images_readable_for_all(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        directory.chmod(0o755)
    references = image_set(first).ensure(programs)
    for program in programs.values():
        copy = program.with_suffix(".copy")
        shutil.copy(program, copy)
        os.utime(copy, (0, 0))
    copies = {name: path.with_suffix(".copy") for name, path in programs.items()}
    assert image_set(second).ensure(copies) == references
    assert len(set(references.model_dump().values())) == len(IMAGE_PROGRAMS)
    assert ImageReferences.load(first / "images.json") == references
    for path in (first / "storage").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_images_are_made_again_only_when_a_program_changed_or_one_is_gone(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    images = image_set(tmp_path)
    before = images.ensure(programs)
    made = blobs(tmp_path)
    assert images.ensure(programs) == before
    assert blobs(tmp_path) == made

    programs["coredns"].write_bytes(b"another version")
    after = images.ensure(programs)
    assert after.coredns != before.coredns
    assert (after.pause, after.demo) == (before.pause, before.demo)
    # Nodes may still run, and ask for, what came before.
    assert made.keys() < blobs(tmp_path).keys()

    digits = after.pause.partition("@sha256:")[2]
    manifest = next(path for path in blobs(tmp_path) if path.parent.name == digits)
    manifest.unlink()
    (manifest.parents[3] / ".new-left-by-a-death").touch()
    assert images.ensure(programs) == after
    assert manifest.is_file()
    assert not list(tmp_path.rglob(".new-*"))
