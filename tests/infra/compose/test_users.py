"""The operator of a composed stack makes users, as the one of an embedded stack does."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from domain.identifiers import Prefix, new_id
from domain.tokens import hash_of, is_well_formed
from infra.compose.__main__ import main
from tests.servers import Servers

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a workspace, and be in the container of the service `platform`."""
    for name, value in {
        "DATABASE__HOST": servers.database.host,
        "DATABASE__PORT": str(servers.database.port),
        "DATABASE__NAME": servers.database.name,
        "DATABASE__PASSWORDS_DIR": str(servers.database.passwords_dir),
        "OPENBAO_ADDRESS": "http://openbao:8200",
        "PUBLIC_URL": "https://localhost:8443",
    }.items():
        monkeypatch.setenv(name, value)
    workspace_id = new_id(Prefix.WORKSPACE)
    with servers.administrator() as connection:
        connection.execute(
            "INSERT INTO workspaces (id, name, slug, version) VALUES (%s, 'test', %s, 1)",
            (workspace_id, workspace_id[-30:]),
        )
    return workspace_id


def test_a_user_is_made_and_the_token_alone_is_printed(
    servers: Servers, workspace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"user-{uuid.uuid4().hex}"

    assert main(["user", name, "--workspace", workspace, "--role", "owner"]) == 0

    token = capsys.readouterr().out.removesuffix("\n")
    assert is_well_formed(token)
    with servers.administrator() as connection:
        row = connection.execute(
            "SELECT role, workspace_id FROM authenticate(%s, NULL, NULL)", (hash_of(token),)
        ).fetchone()
    assert row == ("owner", workspace)


def test_a_name_that_is_there_is_refused_and_no_token_printed(
    workspace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"user-{uuid.uuid4().hex}"
    assert main(["user", name, "--workspace", workspace]) == 0
    capsys.readouterr()

    assert main(["user", name, "--workspace", workspace]) == 1

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "--existing" in shown.err


@pytest.mark.usefixtures("workspace")
def test_before_the_first_start_the_command_says_how_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE__PASSWORDS_DIR", str(tmp_path))

    assert main(["user", "ada"]) == 1

    assert "docker compose up" in capsys.readouterr().err


def test_the_commands_load_nothing_that_the_image_of_the_api_lacks() -> None:
    loaded = "import sys, infra.compose.__main__; print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", loaded], check=True, cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert {"infra.embedded.stack", "pulumi", "supervisor"} & set(shown.split()) == set()
