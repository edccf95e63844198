import hashlib
import stat
import threading
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.artifacts import ArtifactStore
from infra.tools import PROGRAMS

CONTENTS = {"kubelet": b"a kubelet", "bridge": b"a bridge"}


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    made = tmp_path / "made"
    made.mkdir()
    for name, content in CONTENTS.items():
        (made / name).write_bytes(content)
        (made / name).chmod(0o755)
    return {name: made / name for name in CONTENTS}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_a_set_says_what_a_server_installs_and_where(
    store: ArtifactStore, programs: dict[str, Path]
) -> None:
    made = store.ensure(programs, "linux/amd64")

    bridge, kubelet = made.manifest.artifacts
    assert (bridge.name, bridge.install_path) == ("bridge", "/opt/cni/bin/bridge")
    assert (kubelet.name, kubelet.install_path) == ("kubelet", "/opt/bulkhead/bin/kubelet")
    assert (kubelet.version, kubelet.mode) == (PROGRAMS["kubelet"].version, "0755")
    assert (kubelet.sha256, kubelet.size_bytes) == (_sha256("kubelet"), len(CONTENTS["kubelet"]))
    path = made.find(kubelet.sha256)
    assert path is not None
    assert path.read_bytes() == CONTENTS["kubelet"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(programs["kubelet"].stat().st_mode) == 0o755


def test_an_id_names_one_set_for_ever_while_the_current_one_moves_on(
    store: ArtifactStore, programs: dict[str, Path]
) -> None:
    old = store.ensure(programs, "linux/amd64")
    assert store.ensure(programs, "linux/amd64").id == old.id
    other = store.ensure(programs, "linux/arm64")
    programs["kubelet"].write_bytes(b"a newer kubelet")
    new = store.ensure(programs, "linux/amd64")

    assert len({old.id, other.id, new.id}) == 3
    assert {each.id for each in store.stored()} == {old.id, other.id, new.id}
    pinned, current = store.open(old.id), store.current("linux/amd64")
    assert pinned is not None
    assert current is not None
    assert (pinned.manifest, current.id) == (old.manifest, new.id)
    assert pinned.find(_sha256("kubelet")) is not None
    assert current.find(_sha256("kubelet")) is None


@pytest.mark.parametrize(
    "name", ["", "..", "../sets", "kubelet", "0" * 64, "files/../../made/kubelet"]
)
def test_a_name_from_outside_finds_nothing(
    store: ArtifactStore, programs: dict[str, Path], name: str
) -> None:
    made = store.ensure(programs)

    assert made.find(name) is None
    assert store.open(name) is None
    assert store.current(name) is None


@pytest.mark.parametrize("damage", ["shorter", "missing", "link"])
def test_a_damaged_file_is_not_served_and_the_next_ensure_repairs_it(
    store: ArtifactStore, programs: dict[str, Path], damage: str
) -> None:
    made = store.ensure(programs)
    path = made.find(_sha256("kubelet"))
    assert path is not None
    path.unlink()
    if damage == "shorter":
        path.write_bytes(CONTENTS["kubelet"][:-1])
    elif damage == "link":
        path.symlink_to(programs["kubelet"])

    with pytest.raises(BulkheadError) as caught:
        made.find(_sha256("kubelet"))
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE

    assert store.ensure(programs).id == made.id
    assert made.find(_sha256("kubelet")) == path
    assert not path.is_symlink()


def test_a_changed_byte_of_the_same_size_is_repaired_by_the_next_ensure(
    store: ArtifactStore, programs: dict[str, Path]
) -> None:
    made = store.ensure(programs)
    path = made.find(_sha256("kubelet"))
    assert path is not None
    path.write_bytes(b"x" + CONTENTS["kubelet"][1:])

    store.ensure(programs)

    assert path.read_bytes() == CONTENTS["kubelet"]


def test_a_manifest_that_was_tampered_with_is_refused(
    store: ArtifactStore, programs: dict[str, Path], tmp_path: Path
) -> None:
    made = store.ensure(programs)
    manifest = tmp_path / "artifacts" / "sets" / f"{made.id}.json"
    manifest.write_text(manifest.read_text().replace("/opt/bulkhead/bin", "/etc"))

    with pytest.raises(BulkheadError, match="manifest"):
        store.open(made.id)


def test_what_has_no_pin_is_not_stored(store: ArtifactStore, programs: dict[str, Path]) -> None:
    with pytest.raises(BulkheadError, match="no pin for stranger"):
        store.ensure({"stranger": programs["kubelet"]})


def test_processes_that_store_at_once_leave_one_whole_set(
    store: ArtifactStore, programs: dict[str, Path], tmp_path: Path
) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(store.ensure(programs).id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(ids), len(set(ids))) == (8, 1)
    files = tmp_path / "artifacts" / "files"
    assert {path.name for path in files.iterdir()} == {_sha256(name) for name in CONTENTS}


def _sha256(name: str) -> str:
    return hashlib.sha256(CONTENTS[name]).hexdigest()
