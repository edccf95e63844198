import json
import stat
from pathlib import Path

import pytest

from cli.configuration import Configuration
from infra.embedded.home import Home
from tests.cli.conftest import Bulkhead


def _owner_variables(home: Home) -> dict[str, str]:
    lines = home.owner_file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_login_is_stored_after_the_api_accepted_it_and_used_from_then_on(
    stranger: Bulkhead, stack_home: Home
) -> None:
    variables = _owner_variables(stack_home)
    url, token = variables["BULKHEAD_API_URL"], variables["BULKHEAD_API_TOKEN"]
    login_file = stranger.folder / ".config" / "bulkhead" / "login.json"

    mistyped = token[:-1] + ("B" if token.endswith("A") else "A")
    refused = stranger.run("login", "--url", url, stdin=f"{mistyped}\n")
    assert refused.returncode == 4
    assert "Nothing was stored" in refused.stderr
    assert not login_file.exists()

    accepted = stranger.run("login", "--url", url, stdin=f"{token}\n")
    assert accepted.returncode == 0, accepted.stderr
    assert stat.S_IMODE(login_file.stat().st_mode) == 0o600
    assert token not in accepted.stdout + accepted.stderr + refused.stderr

    assert str(login_file) in stranger.ok("whoami")
    assert "Logged out" in stranger.ok("logout")
    assert stranger.run("whoami").returncode == 4


def test_a_login_on_a_terminal_does_not_show_the_token(
    stranger: Bulkhead, stack_home: Home
) -> None:
    variables = _owner_variables(stack_home)
    token = variables["BULKHEAD_API_TOKEN"]
    arguments = ["login", "--url", variables["BULKHEAD_API_URL"]]

    code, shown = stranger.on_terminal(arguments, ("not shown", f"{token}\n"))

    assert code == 0, shown
    assert token not in shown
    assert "Logged in" in shown


def test_https_needs_the_authority_once_and_remembers_it(
    stranger: Bulkhead, stack_home: Home
) -> None:
    variables = _owner_variables(stack_home)
    plain = int(variables["BULKHEAD_API_URL"].rsplit(":", 1)[1])
    url = f"https://127.0.0.1:{plain + 1}"
    token = variables["BULKHEAD_API_TOKEN"]

    refused = stranger.run("login", "--url", url, stdin=token)
    assert refused.returncode == 6
    assert "--ca-file" in refused.stderr

    authority = stranger.folder / "ca.pem"
    authority.write_text(stack_home.ca_file.read_text())
    accepted = stranger.run("login", "--url", url, "--ca-file", "ca.pem", stdin=token)
    assert accepted.returncode == 0, accepted.stderr
    authority.unlink()
    assert url in stranger.ok("whoami")


def test_who_is_not_logged_in_is_told_what_to_do(stranger: Bulkhead) -> None:
    result = stranger.run("clusters", "list")
    assert result.returncode == 4
    assert "next: bulkhead login --url URL" in result.stderr
    assert result.stdout == ""


def test_a_token_is_never_an_argument(stranger: Bulkhead) -> None:
    assert stranger.run("login", "--token", "x").returncode == 2


def test_an_api_that_is_not_there_is_unavailable(stranger: Bulkhead) -> None:
    result = stranger.run(
        "clusters",
        "list",
        "--json",
        BULKHEAD_API_URL="http://127.0.0.1:9",
        BULKHEAD_API_TOKEN="x",
    )
    assert result.returncode == 6
    assert "does not answer" in json.loads(result.stderr)["error"]["message"]


def test_the_chosen_workspace_is_remembered_and_decides_what_is_seen(
    bulkhead: Bulkhead,
) -> None:
    here = bulkhead.environment.pop("BULKHEAD_WORKSPACE")
    bulkhead.ok("regions", "create", "mine", "--workspace", here)
    assert bulkhead.json("regions", "list") == []

    bulkhead.ok("workspaces", "use", here)
    assert [region["name"] for region in bulkhead.json("regions", "list")] == ["mine"]
    assert bulkhead.json("whoami")["workspace_id"] == here

    other = bulkhead.json("workspaces", "create", "other")
    assert bulkhead.json("regions", "list", "--workspace", other["slug"]) == []

    bulkhead.ok("workspaces", "use", "--none")
    assert bulkhead.json("regions", "list") == []


def test_a_workspace_that_is_not_ones_own_is_refused_with_the_way_out(bulkhead: Bulkhead) -> None:
    unknown = f"ws_{'0' * 32}"
    result = bulkhead.run("clusters", "list", "--workspace", unknown)
    assert result.returncode == 4
    assert "next: bulkhead workspaces list" in result.stderr


def test_a_remembered_workspace_that_is_gone_is_forgotten_but_not_in_silence(
    bulkhead: Bulkhead,
) -> None:
    del bulkhead.environment["BULKHEAD_WORKSPACE"]
    url = bulkhead.json("whoami")["url"]
    gone = f"ws_{'0' * 32}"
    Configuration({"HOME": str(bulkhead.folder)}).remember_workspace(url, gone)
    sentence = f"The remembered workspace {gone} is not at {url} any more"

    # Whoever asks nobody before a deletion must not meet another workspace's clusters.
    refused = bulkhead.run("clusters", "delete", "demo", "--yes")
    assert refused.returncode == 4
    assert sentence in refused.stderr
    assert "next: bulkhead workspaces use WORKSPACE" in refused.stderr
    assert "akua-context" not in refused.stderr

    # A token for one command may only reach less.
    token = bulkhead.ok("tokens", "create", "ci", "--workspace", "default").strip()
    assert bulkhead.run("tokens", "list", BULKHEAD_API_TOKEN=token).returncode == 4

    result = bulkhead.run("clusters", "list", "--json")
    assert (result.returncode, result.stdout) == (0, "[]\n")
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    again = bulkhead.run("clusters", "list")
    assert again.returncode == 0
    assert sentence not in again.stderr
    assert "in workspace Default (ws_" in again.stderr


def test_the_workspace_in_use_is_marked_chosen_or_not(bulkhead: Bulkhead) -> None:
    marked = [line for line in bulkhead.ok("workspaces", "list").splitlines() if "*" in line]
    assert [bulkhead.environment.pop("BULKHEAD_WORKSPACE") in line for line in marked] == [True]

    own = [line for line in bulkhead.ok("workspaces", "list").splitlines() if "*" in line]
    assert [line.split()[0] for line in own] == ["Default"]


def test_a_slug_is_not_hidden_by_somebody_who_takes_it_for_a_name(bulkhead: Bulkhead) -> None:
    first = bulkhead.json("workspaces", "create", "First", "--slug", "the-slug")
    bulkhead.json("workspaces", "create", "the-slug", "--slug", "another-slug")
    assert bulkhead.json("workspaces", "get", "the-slug")["id"] == first["id"]


def test_a_rejected_token_is_traced_to_where_it_came_from(bulkhead: Bulkhead) -> None:
    result = bulkhead.run("clusters", "list", BULKHEAD_API_TOKEN="mistyped")
    assert result.returncode == 4
    assert "The token from BULKHEAD_API_TOKEN is rejected" in result.stderr
    assert "next: unset BULKHEAD_API_TOKEN" in result.stderr
    assert "mistyped" not in result.stderr.replace("mistyped one", "")


def test_a_workspace_is_renamed_by_its_slug(bulkhead: Bulkhead) -> None:
    workspace = bulkhead.json("workspaces", "get", bulkhead.environment["BULKHEAD_WORKSPACE"])
    renamed = bulkhead.json("workspaces", "update", workspace["slug"], "--name", "Renamed")
    assert (renamed["id"], renamed["name"]) == (workspace["id"], "Renamed")
    assert bulkhead.run("workspaces", "update", workspace["slug"]).returncode == 2


def test_a_workspaces_token_works_until_it_is_revoked(bulkhead: Bulkhead, tmp_path: Path) -> None:
    bulkhead.ok("regions", "create", "mine")
    token = bulkhead.ok("tokens", "create", "ci", "--expires-in", "1h").strip()
    url = bulkhead.json("whoami")["url"]
    robot = Bulkhead(tmp_path, BULKHEAD_API_URL=url, BULKHEAD_API_TOKEN=token)

    assert [region["name"] for region in robot.json("regions", "list")] == ["mine"]
    listed = bulkhead.ok("tokens", "list")
    assert "ci" in listed
    assert token not in listed
    bulkhead.ok("tokens", "revoke", "ci")

    refused = robot.run("regions", "list")
    assert refused.returncode == 4
    assert token not in refused.stderr


@pytest.mark.parametrize("lifetime", ["30", "0d", "1w", "-1h"])
def test_a_lifetime_has_a_unit(bulkhead: Bulkhead, lifetime: str) -> None:
    result = bulkhead.run("tokens", "create", "ci", f"--expires-in={lifetime}")
    assert result.returncode == 2
    assert "for example 30d" in result.stderr
