import os
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.compose.platform import authority_certificate, home_of, owner_lines
from infra.compose.secret_files import write_secrets
from infra.compose.volumes import Users, Volumes

ME = os.getuid()
# A user who is not root can give files to nobody else.
EVERYONE_IS_ME = Users(setup=ME, postgresql=ME, api=ME, openbao=ME, temporal=ME, worker=ME)


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "bulkhead")


@pytest.fixture
def openbao(tmp_path: Path) -> Path:
    return tmp_path / "openbao"


def test_each_process_gets_only_what_it_needs_and_nobody_else_can_read_it(
    volumes: Volumes, openbao: Path
) -> None:
    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=False)

    assert _files(volumes.api) == {"api.key", "passwords/bulkhead_api"}
    assert _files(volumes.worker) == {
        "worker.key",
        "passwords/bulkhead_worker",
        "passwords/bulkhead_sweeper",
    }
    assert _files(volumes.postgresql) == {"administrator"}
    modes = {path.stat().st_mode & 0o777 for path in volumes.root.rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_a_second_start_changes_nothing_and_brings_back_what_is_missing(
    volumes: Volumes, openbao: Path
) -> None:
    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=False)
    before = _contents(volumes.root) | _contents(openbao)
    (volumes.api / "api.key").unlink()

    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=True)

    assert _contents(volumes.root) | _contents(openbao) == before


def test_forgets_the_store_of_a_first_start_that_did_not_end(
    volumes: Volumes, openbao: Path
) -> None:
    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=False)
    store = openbao / "raft" / "vault.db"
    store.touch()

    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=True)
    assert store.exists()

    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=False)
    assert not store.exists()


def test_never_touches_the_store_of_a_server_that_was_set_up(
    volumes: Volumes, openbao: Path
) -> None:
    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=False)
    store = openbao / "raft" / "vault.db"
    store.touch()
    volumes.openbao_is_set_up.touch()

    write_secrets(volumes, EVERYONE_IS_ME, openbao, openbao_runs=False)

    assert store.exists()


def test_the_owners_lines_leave_out_the_path_inside_of_the_container(volumes: Volumes) -> None:
    volumes.setup.mkdir(parents=True)
    home_of(volumes).owner_file.write_text(
        "BULKHEAD_API_URL=https://localhost:8443\nBULKHEAD_CA_FILE=/bulkhead/setup/ca.crt\n"
    )

    assert owner_lines(volumes) == "BULKHEAD_API_URL=https://localhost:8443\n"


def test_before_the_first_start_it_says_how_to_start(volumes: Volumes) -> None:
    with pytest.raises(BulkheadError, match="docker compose up") as caught:
        authority_certificate(volumes)

    assert caught.value.reason is Reason.FAILED_PRECONDITION


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def _contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
