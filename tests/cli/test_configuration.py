import json
import stat
from pathlib import Path

import pytest

from cli.configuration import Configuration, Connection, Wishes, WorkspaceChoice, normalise_url
from cli.errors import CliError, ExitCode


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def _configuration(home: Path, working_directory: Path, **environment: str) -> Configuration:
    return Configuration({"HOME": str(home), **environment}, working_directory)


def _found(configuration: Configuration, wishes: Wishes | None = None) -> tuple[str, str | None]:
    connection = configuration.resolve(wishes or Wishes())
    return connection.url, connection.token


def _write_owner_file(folder: Path, mode: int = 0o600) -> None:
    folder.mkdir(parents=True)
    file = folder / "owner.env"
    file.write_text(
        "# the first owner\nexport BULKHEAD_API_URL=http://127.0.0.1:8080\n"
        "BULKHEAD_API_TOKEN='owner-token'\nBULKHEAD_CA_FILE=/nowhere/ca.crt\n"
    )
    file.chmod(mode)


def test_finds_the_embedded_stack_from_a_folder_below_it(home: Path, tmp_path: Path) -> None:
    _write_owner_file(tmp_path / ".bulkhead")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    configuration = _configuration(home, below)

    assert _found(configuration) == ("http://127.0.0.1:8080", "owner-token")
    assert configuration.resolve(Wishes()).source == str(tmp_path / ".bulkhead/owner.env")


def test_prefers_the_environment_to_the_login_and_the_login_to_the_embedded_stack(
    home: Path, tmp_path: Path
) -> None:
    _write_owner_file(tmp_path / ".bulkhead")
    assert _found(_configuration(home, tmp_path)) == ("http://127.0.0.1:8080", "owner-token")

    login = Connection(url="https://login.example", token="login-token")
    _configuration(home, tmp_path).store_login(login)
    assert _found(_configuration(home, tmp_path)) == ("https://login.example", "login-token")

    environment = {"BULKHEAD_API_URL": "https://env.example", "BULKHEAD_API_TOKEN": "env-token"}
    by_environment = _configuration(home, tmp_path, **environment)
    assert _found(by_environment) == ("https://env.example", "env-token")


def test_never_sends_a_stored_token_to_another_address(home: Path, tmp_path: Path) -> None:
    configuration = _configuration(home, tmp_path)
    configuration.store_login(Connection(url="https://login.example", token="login-token"))

    with pytest.raises(CliError, match=r"no token for https://other\.example") as refused:
        configuration.resolve(Wishes(url="https://other.example"))

    assert refused.value.exit_code is ExitCode.NOT_AUTHORISED
    same = Wishes(url="https://login.example/v1/")
    assert _found(configuration, same) == ("https://login.example", "login-token")


def test_stores_a_login_that_nobody_else_can_read(home: Path, tmp_path: Path) -> None:
    configuration = _configuration(home, tmp_path)
    configuration.store_login(
        Connection(url="https://a.example", token="secret", ca_certificates="PEM")
    )

    assert stat.S_IMODE(configuration.login_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(configuration.directory.stat().st_mode) == 0o700
    assert configuration.resolve(Wishes()).ca_certificates == "PEM"
    assert configuration.forget_login()
    assert not configuration.forget_login()


def test_refuses_credentials_that_others_can_read(home: Path, tmp_path: Path) -> None:
    _write_owner_file(tmp_path / ".bulkhead", mode=0o644)

    with pytest.raises(CliError, match="others can read it") as refused:
        _configuration(home, tmp_path).resolve(Wishes())

    assert refused.value.next_commands[0].startswith("chmod 600 ")


def test_remembers_a_workspace_for_each_address(home: Path, tmp_path: Path) -> None:
    configuration = _configuration(home, tmp_path, XDG_CONFIG_HOME=str(tmp_path / "xdg"))
    here = Connection(url="https://a.example", token="t")
    configuration.remember_workspace(here.url, "ws_1")

    remembered = WorkspaceChoice(name="ws_1", is_remembered=True)
    assert configuration.workspace_for(here, Wishes()) == remembered
    given = WorkspaceChoice(name="ws_2", is_remembered=False)
    assert configuration.workspace_for(here, Wishes(workspace="ws_2")) == given
    elsewhere = Connection(url="https://b.example", token="t")
    assert configuration.workspace_for(elsewhere, Wishes()) is None
    assert json.loads((tmp_path / "xdg/bulkhead/workspaces.json").read_text()) == {
        "https://a.example": "ws_1"
    }
    configuration.remember_workspace(here.url, None)
    assert configuration.workspace_for(here, Wishes()) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.example/", "https://api.example"),
        ("https://api.example:8443/v1", "https://api.example:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_takes_an_address_with_and_without_the_version(text: str, url: str) -> None:
    assert normalise_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "api.example",
        "ftp://api.example",
        "https://",
        "https://api.example/somewhere",
        "https://api.example:port",
        "https://api.example?token=x",
        "http://api.example",
    ],
)
def test_refuses_what_is_no_safe_address(text: str) -> None:
    with pytest.raises(CliError) as refused:
        normalise_url(text)
    assert refused.value.exit_code is ExitCode.USAGE


def test_does_not_repeat_a_password_that_was_put_into_an_address() -> None:
    with pytest.raises(CliError) as refused:
        normalise_url("https://user:hunter2@api.example")
    assert "hunter2" not in refused.value.message


def test_shows_no_token_when_a_connection_is_printed() -> None:
    connection = Connection(url="https://a.example", token="canary", ca_certificates="pem")
    assert "canary" not in repr(connection)
