"""Sentences of the API at the terminal: they name commands where the API names requests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import api
from cli.api_words import in_commands
from cli.errors import CliError
from tests.cli.recorded import Recorded

_REQUEST = re.compile(r"/v1/|\b(GET|POST|PATCH|PUT|DELETE) /|\b[a-z_]+=true\b|(?<!\w):[a-z]\w+")
# What servers are told, and whoever asks for an address that is none: no command gets to see it.
_NOT_FOR_PEOPLE = ("/v1/nodes/", "/v1/openapi.json")


def _sentences() -> Iterator[str]:
    """Return each text of the API's sources that may be a sentence for who asked."""
    for file in sorted(Path(api.__file__).parent.rglob("*.py")):
        tree = ast.parse(file.read_text())
        inner = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node)
            if part is not node
        }
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in inner | said:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                yield "".join(part if isinstance(part, str) else "op_1" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_no_refusal_of_the_api_leaves_a_person_with_a_request() -> None:
    about_requests = [
        text
        for text in _sentences()
        if ". " in text.rstrip() + " " and _REQUEST.search(text)
        if not any(place in text for place in _NOT_FOR_PEOPLE)
    ]
    assert len(about_requests) >= 10
    left = [text for text in about_requests if _REQUEST.search(in_commands(text))]
    assert not left


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Wait for it with POST /v1/operations/op_1:wait, or cancel it.",
            "Wait for it with `bulkhead operations watch op_1`, or cancel it.",
        ),
        ("GET /v1/products lists those there are.", "`bulkhead products list` lists those"),
        ("Look again: GET /v1/installs/inst_1.", "Look again: `bulkhead installs get inst_1`."),
        ("A delete with force=true does without it.", "A delete with --force does without it."),
        ("GET /v1/installs/inst_1/unheard_of", "GET /v1/installs/inst_1/unheard_of"),
    ],
)
def test_a_request_in_a_sentence_becomes_the_command_that_sends_it(said: str, told: str) -> None:
    assert in_commands(said).startswith(told)


def test_a_program_reads_what_the_api_said_and_a_person_what_to_type() -> None:
    said = CliError("Wait with POST /v1/operations/op_1:wait.")
    for_person, for_program = Recorded({}), Recorded({})
    for_person.session().output.error(said)
    for_program.session(as_json=True).output.error(said)
    assert "Wait with `bulkhead operations watch op_1`." in for_person.shown
    assert "POST /v1/operations/op_1:wait" in for_program.shown
