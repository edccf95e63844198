import os
import stat
from pathlib import Path

import pytest

from cli.commands.secrets.values import refuse_unwritable
from cli.errors import CliError
from cli.private_files import read_private, write_private


def test_a_file_is_private_from_its_first_moment_and_whole_when_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kubeconfig"
    target.write_text("old")
    target.chmod(0o644)
    before = os.umask(0)
    seen: list[tuple[int, str]] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append((stat.S_IMODE(os.fstat(descriptor).st_mode), target.read_text()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    try:
        write_private(target, "new")
    finally:
        os.umask(before)

    assert seen == [(0o600, "old")]
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_does_not_replace_what_it_was_not_asked_to(tmp_path: Path) -> None:
    target = tmp_path / "kubeconfig"
    target.write_text("mine")

    with pytest.raises(CliError, match="exists already"):
        write_private(target, "new", replace=False)

    assert target.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_does_not_write_through_a_symbolic_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    link = tmp_path / "link"
    link.symlink_to(elsewhere)

    write_private(link, "new")

    assert elsewhere.read_text() == "untouched"
    assert link.read_text() == "new"


def test_says_why_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CliError, match="Cannot write"):
        write_private(tmp_path / "file" / "below", "x")


def test_reads_nothing_where_nothing_is(tmp_path: Path) -> None:
    assert read_private(tmp_path / "missing") is None


def test_a_value_is_not_read_for_a_file_that_is_only_a_link_to_nowhere(tmp_path: Path) -> None:
    link = tmp_path / "value"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CliError, match="exists already"):
        refuse_unwritable(link, force=False)
