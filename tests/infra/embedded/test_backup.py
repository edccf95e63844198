"""What is saved comes back, on the same machine or another one, or nothing changes."""

import hashlib
import json
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import VersionPlace
from infra.embedded.archive import LOGIN_KEYS, Manifest
from infra.embedded.backup import back_up, restore
from infra.embedded.command import main
from infra.embedded.server import Part
from infra.openbao.restore_marker import read_restore_marker
from infra.openbao.seal import id_of
from tests import charts
from tests.infra.embedded.small_stack import PARTS, SmallStack
from tests.servers import temporary_home

# When everything has ended; when the secret store has the snapshot, and the database is the new one
# still; after both, before what was replaced is removed.
MOMENTS = (
    pytest.param(10, marks=pytest.mark.full),
    22,
    pytest.param(24, marks=pytest.mark.full),
)


@dataclass(frozen=True)
class Saved:
    """A stack, what was in it when it was saved, and where that went."""

    small: SmallStack
    place: VersionPlace
    archive: Path
    seal_key: Path
    manifest: Manifest
    chart: str
    token: str
    stolen_token: str

    def name(self) -> object:
        return self.small.one("SELECT name FROM workspaces")

    def chart_of(self, tag: str) -> str | None:
        """Return the digest of a tag in the stack's registry of charts."""
        answer = httpx.head(
            f"http://{self.small.stack.charts.host_and_port}/v2/charts/web/manifests/{tag}",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
            trust_env=False,
        )
        return answer.headers.get("Docker-Content-Digest") if answer.is_success else None


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    directory = tmp_path_factory.mktemp("backup")
    with temporary_home() as home:
        small = SmallStack(home)
        small.stack.up(PARTS | {Part.CHARTS})
        place = small.write(small.make_workspace(), b"old value")
        tokens = [add_token(small, place.workspace_id) for _ in range(2)]
        chart = charts.Registry(small.stack.charts.host_and_port).push(charts.archive("web"))
        files = directory / "archive", directory / "seal.key"
        manifest = back_up(small.stack, files[0], seal_key_to=files[1])
        yield Saved(small, place, *files, manifest, chart, *tokens)


def rename_workspace(small: SmallStack, name: str) -> None:
    with small.stack.administrator("bulkhead") as connection:
        connection.execute("UPDATE workspaces SET name = %s", (name,))


def add_tombstone(small: SmallStack, workspace_id: str) -> str:
    secret_id = new_id(Prefix.SECRET)
    with small.stack.administrator("bulkhead") as connection:
        connection.execute(
            "INSERT INTO secret_tombstones (workspace_id, secret_id, kind, version_ids, evidence,"
            " actor_kind, actor_id) VALUES (%s, %s, 'generic', '{}', '{}', 'user', 'usr_1')",
            (workspace_id, secret_id),
        )
    return secret_id


def add_token(small: SmallStack, workspace_id: str) -> str:
    token_id = new_id(Prefix.API_TOKEN)
    with small.stack.administrator("bulkhead") as connection:
        connection.execute(
            "INSERT INTO api_tokens (workspace_id, id, name, role, scopes, prefix, token_hash,"
            " created_by) VALUES (%s, %s, 'test', 'admin', '{}', '', %s, 'usr_1')",
            (workspace_id, token_id, token_id.encode()),
        )
    return token_id


def revoke(small: SmallStack, workspace_id: str, token_id: str) -> None:
    with small.stack.administrator("bulkhead") as connection:
        connection.execute("DELETE FROM api_tokens WHERE id = %s", (token_id,))
        connection.execute(
            "INSERT INTO audit_events (workspace_id, id, actor_kind, actor_id, action,"
            " resource_type, resource_id, outcome, details) VALUES (%s, %s, 'user', 'usr_1',"
            " 'api_token.delete', 'api_token', %s, 'allowed', '{}')",
            (workspace_id, new_id(Prefix.AUDIT_EVENT), token_id),
        )


def test_a_restore_brings_the_old_state_but_nothing_that_was_purged_or_revoked(
    saved: Saved,
) -> None:
    small = saved.small
    small.stack.up(PARTS | {Part.CHARTS})
    name = saved.name()
    later = small.write(saved.place.workspace_id, b"later value")
    rename_workspace(small, "later")
    registry = charts.Registry(small.stack.charts.host_and_port)
    registry.push(charts.archive("web", "2.0.0"), "1.0.0")
    purged = add_tombstone(small, saved.place.workspace_id)
    revoke(small, saved.place.workspace_id, saved.stolen_token)
    authority = small.home.ca_file.read_bytes()

    restore(small.stack, saved.archive, seal_key=None)

    first = read_restore_marker(small.stack.openbao("api").restored_at_file)
    assert first is not None
    assert first.snapshot_sha256 == saved.manifest.files["openbao.snapshot"].sha256
    small.stack.up(PARTS | {Part.CHARTS})
    assert saved.name() == name
    assert saved.chart_of("1.0.0") == saved.chart
    assert small.read(saved.place) == b"old value"
    with pytest.raises(BulkheadError) as caught:
        small.read(later)
    assert caught.value.reason is Reason.NOT_FOUND
    found = small.one("SELECT count(*) FROM secret_tombstones WHERE secret_id = %s", purged)
    assert found == 1
    # The API may run before a worker looks at what was restored.
    assert small.one("SELECT array_agg(id) FROM api_tokens") == [saved.token]
    assert small.home.ca_file.read_bytes() == authority
    # What was replaced is gone, and so is what the restore worked with.
    assert not list(small.home.openbao.glob("raft-*"))
    assert small.one("SELECT count(*) FROM pg_database WHERE datname LIKE 'bulkhead_%%'") == 0

    restore(small.stack, saved.archive, seal_key=None)

    second = read_restore_marker(small.stack.openbao("api").restored_at_file)
    assert second is not None
    assert second.id != first.id


@pytest.mark.full
def test_another_machine_needs_the_seal_key_and_says_which(saved: Saved, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(bytes(32))
    no_key = tmp_path / "no.key"
    no_key.write_text("something else")
    with temporary_home() as home:
        other = SmallStack(home)
        other.up()
        workspace_id = other.make_workspace()
        place = other.write(workspace_id, b"of the other one")
        keys = other.keys()
        for key in (None, wrong, no_key):
            with pytest.raises(BulkheadError) as caught:
                restore(other.stack, saved.archive, seal_key=key)
            assert key is no_key or saved.manifest.seal_key_id in caught.value.message
        assert other.read(place) == b"of the other one"
        assert other.keys() == keys

        restore(other.stack, saved.archive, seal_key=saved.seal_key)
        other.up()
        assert other.read(saved.place) == b"old value"
        assert other.one("SELECT id FROM workspaces") == saved.place.workspace_id
        assert list(other.stack.charts.storage.rglob("blobs/sha256/*/*/data"))


def test_an_archive_is_private_and_has_no_seal_key_in_it(saved: Saved) -> None:
    key = saved.seal_key.read_bytes()
    assert id_of(key) == saved.manifest.seal_key_id
    assert [stat.S_IMODE(file.stat().st_mode) for file in (saved.archive, saved.seal_key)] == [
        0o600,
        0o600,
    ]
    content = saved.archive.read_bytes()
    assert key not in content
    assert b"old value" not in content
    assert (saved.small.home.openbao / LOGIN_KEYS[0]).read_bytes() in content


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_damaged_archive_changes_nothing(saved: Saved, tmp_path: Path, where: float) -> None:
    content = saved.archive.read_bytes()
    begin = int(len(content) * where)
    # More than the zeros that follow a member, whose loss is none.
    end = begin + 1024
    damaged, short = tmp_path / "damaged", tmp_path / "short"
    damaged.write_bytes(
        content[:begin] + bytes(byte ^ 0xFF for byte in content[begin:end]) + content[end:]
    )
    short.write_bytes(content[:begin])
    for archive in (damaged, short, tmp_path / "missing"):
        with pytest.raises(BulkheadError, match="cannot be used") as caught:
            restore(saved.small.stack, archive, seal_key=None)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert saved.small.read(saved.place) == b"old value"
    saved.small.up()


def test_no_file_is_written_over(saved: Saved) -> None:
    before = hashlib.sha256(saved.archive.read_bytes()).digest()
    for files in (
        (saved.archive, None),
        (saved.archive.with_name("new"), saved.seal_key),
        (saved.archive.parent / "missing" / "file", None),
    ):
        with pytest.raises(BulkheadError):
            back_up(saved.small.stack, files[0], seal_key_to=files[1])
    assert hashlib.sha256(saved.archive.read_bytes()).digest() == before
    assert not saved.archive.with_name("new").exists()


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_a_restore_that_was_killed_nothing_starts_until_it_is_repeated(
    saved: Saved, moment: int
) -> None:
    small = saved.small
    rename_workspace(small, "later")
    purged = add_tombstone(small, saved.place.workspace_id)
    code = small.run_and_die(moment, "restore", str(saved.archive))
    assert code == -signal.SIGKILL
    for refused in (small.up, lambda: back_up(small.stack, Path("/x"), seal_key_to=None)):
        with pytest.raises(BulkheadError, match="make restore") as caught:
            refused()
        assert caught.value.reason is Reason.FAILED_PRECONDITION
    restore(small.stack, saved.archive, seal_key=None)
    small.up()
    assert saved.name() != "later"
    assert small.read(saved.place) == b"old value"
    found = small.one("SELECT count(*) FROM secret_tombstones WHERE secret_id = %s", purged)
    assert found == 1


def test_the_commands_say_what_they_did_and_ask_before_they_replace(
    saved: Saved,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BULKHEAD_HOME", str(saved.small.home.directory))
    archive = tmp_path / "archive"
    assert main(["backup", str(archive), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["archive"] == str(archive)
    assert printed["manifest"]["seal_key_id"] == saved.manifest.seal_key_id
    assert main(["restore", str(archive)]) == 1
    assert "Nobody is there to ask" in capsys.readouterr().err
    assert saved.small.read(saved.place) == b"old value"
    assert main(["rotate-seal-key", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["previous_id"] == saved.manifest.seal_key_id
    assert main(["restore", str(archive), "--yes"]) == 1
    assert saved.manifest.seal_key_id in capsys.readouterr().err
    assert main(["restore", str(archive), "--yes", "--seal-key", str(saved.seal_key)]) == 0
    assert saved.small.read(saved.place) == b"old value"


def test_a_stack_that_does_not_run_is_not_saved(tmp_path: Path) -> None:
    with temporary_home() as home:
        small = SmallStack(home)
        with pytest.raises(BulkheadError, match="make up") as caught:
            back_up(small.stack, tmp_path / "archive", seal_key_to=None)
        assert caught.value.reason is Reason.FAILED_PRECONDITION
        shutil.rmtree(home.directory, ignore_errors=True)
