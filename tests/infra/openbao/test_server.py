"""The files that an embedded server starts with."""

from pathlib import Path

from infra.openbao.server import write_server_configuration


def test_keys_are_kept_and_nobody_else_can_read_anything(tmp_path: Path) -> None:
    directory = tmp_path / "openbao"
    file = write_server_configuration(directory, port=8200, cluster_port=8201)
    keys = {path.name: path.read_bytes() for path in directory.glob("*.key")}
    again = write_server_configuration(directory, port=9200, cluster_port=9201)
    assert again == file
    assert "127.0.0.1:9200" in file.read_text()
    assert {path.name: path.read_bytes() for path in directory.glob("*.key")} == keys
    assert set(keys) == {"seal.key", "worker.key", "api.key", "operator.key"}
    assert [
        path for path in [directory, *directory.rglob("*")] if path.stat().st_mode & 0o077
    ] == []


def test_two_audit_logs_are_in_folders_of_their_own(tmp_path: Path) -> None:
    text = write_server_configuration(tmp_path, port=8200, cluster_port=8201).read_text()
    assert text.count('audit "file"') == 2
    for name in ("audit-1", "audit-2"):
        assert f'"{name}/audit.log"' in text
