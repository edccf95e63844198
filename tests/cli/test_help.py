import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from tests.cli.conftest import Bulkhead

GROUPS = {group.name: group.typer_instance for group in app.registered_groups}


def _commands() -> list[list[str]]:
    found = [[str(command.name)] for command in app.registered_commands]
    for name, group in GROUPS.items():
        assert isinstance(group, typer.Typer)
        found += [[str(name), str(command.name)] for command in group.registered_commands]
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


def test_shells_complete_commands(stranger: Bulkhead) -> None:
    words = {"COMP_WORDS": "bulkhead clusters su", "COMP_CWORD": "2"}
    result = stranger.run(**{**words, "_BULKHEAD_COMPLETE": "complete_bash"})
    assert result.stdout.split() == ["suspend"]
