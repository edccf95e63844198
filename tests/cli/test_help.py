import pytest
import typer
from typer.testing import CliRunner

from cli.app import app
from tests.cli.conftest import Bulkhead


def _commands(group: typer.Typer = app, words: tuple[str, ...] = ()) -> list[list[str]]:
    found = [[*words, str(command.name)] for command in group.registered_commands]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found += _commands(inner.typer_instance, (*words, str(inner.name)))
    return found


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert f"$ bulkhead {' '.join(words)}" in result.output
    assert "--json" in result.output


def test_the_exit_codes_are_documented(stranger: Bulkhead) -> None:
    shown = stranger.ok("--help")
    for line in ("3  not found", "7    the operation failed", "130  interrupted"):
        assert line in shown


def test_the_version_is_an_option_too(stranger: Bulkhead) -> None:
    assert stranger.ok("--version") == stranger.ok("version")


@pytest.mark.parametrize("words", [["--json", "clusters", "list"], ["clusters", "--json", "list"]])
def test_a_shared_option_before_the_command_is_told_its_place(
    stranger: Bulkhead, words: list[str]
) -> None:
    result = stranger.run(*words, COLUMNS="120")
    assert result.returncode == 2
    assert "--json belongs behind the command" in result.stderr


def _completions(bulkhead: Bulkhead, line: str) -> list[str]:
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    return bulkhead.run(**variables, _BULKHEAD_COMPLETE="complete_bash").stdout.split()


def test_shells_complete_commands_and_the_names_of_what_there_is(
    bulkhead: Bulkhead, stranger: Bulkhead
) -> None:
    assert _completions(stranger, "bulkhead clusters su") == ["suspend"]
    assert _completions(stranger, "bulkhead clusters create a --region fr") == []
    bulkhead.ok("regions", "create", "frankfurt")
    bulkhead.ok("regions", "create", "helsinki")
    assert _completions(bulkhead, "bulkhead clusters create a --region fr") == ["frankfurt"]
