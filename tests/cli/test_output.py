import io
import json
import re

import pytest

from cli.errors import CliError, ExitCode
from cli.output import Column, Output, plain_table
from cli.text import age, clean, duration

COLUMNS = (Column("NAME", "name"), Column("USED", "used", right=True), Column("ID", "id"))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def streams() -> tuple[io.StringIO, io.StringIO]:
    return io.StringIO(), io.StringIO()


def test_a_pipe_gets_aligned_lines_of_any_width_without_control_codes(
    streams: tuple[io.StringIO, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    out, err = streams
    entries = [
        {"name": "münchen", "used": 7, "id": "x" * 60},
        {"name": "東京", "used": 12345, "id": None},
    ]

    Output(out=out, err=err).listing(entries, COLUMNS, ())

    assert out.getvalue() == (
        f"NAME      USED  ID\nmünchen      7  {'x' * 60}\n東京     12345  -\n"
    )


def test_a_narrow_terminal_breaks_no_word_and_puts_below_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    columns = (
        Column("TIME", "time", wraps=True),
        Column("ID", "id"),
        Column("BY", "by", minor=True),
    )
    entry = {"time": "2026-11-26 10:00:00", "id": "i" * 24, "by": "b" * 60}
    out = _Terminal()

    Output(out=out).listing([entry], columns, ())

    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert [line.rstrip() for line in shown] == [
        "TIME            ID",
        "2026-11-26      " + "i" * 24,
        "10:00:00",
        f"  by: {'b' * 60}",
    ]


def test_lines_and_tabs_of_a_text_become_blanks() -> None:
    assert clean("First line.\n\tSecond\n") == "First line. Second"


def test_what_others_named_cannot_control_a_terminal() -> None:
    hostile = "a\x1b[2Jb\rc\u202ed\x9be\nf"
    assert not set(clean(hostile)) & {"\x1b", "\r", "\u202e", "\x9b", "\n"}
    table = plain_table([{"name": hostile}], [Column("NAME", "name")])
    assert table.count("\n") == 2


def test_an_empty_list_tells_a_person_what_to_do_and_a_pipe_nothing(
    streams: tuple[io.StringIO, io.StringIO],
) -> None:
    out, err = streams
    Output(out=out, err=err).listing([], COLUMNS, ("None yet. Create one:",))
    assert (out.getvalue(), err.getvalue()) == ("", "None yet. Create one:\n")


def test_json_is_alone_on_standard_output_and_errors_are_json_too(
    streams: tuple[io.StringIO, io.StringIO],
) -> None:
    out, err = streams
    output = Output(as_json=True, out=out, err=err)
    output.say("for a person")
    output.note("progress")
    output.listing([{"name": "\x9b"}], COLUMNS, ())
    output.error(CliError("Gone.", ExitCode.NOT_FOUND, next_commands=("look",)))

    assert out.getvalue().isascii()
    assert json.loads(out.getvalue()) == [{"name": "\x9b"}]
    assert json.loads(err.getvalue()) == {
        "error": {"message": "Gone.", "exit_code": 3, "next": ["look"]}
    }


def test_a_terminal_of_80_columns_breaks_lines_between_words_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    path = "/" + "/".join(["folder"] * 20)
    err = _Terminal()

    Output(err=err).error(CliError(f"{'word ' * 20}{path} cannot be read.", next_commands=(path,)))

    shown = re.sub(r"\x1b\[[0-9;]*m", "", err.getvalue()).splitlines()
    assert shown == [
        ("Error: " + "word " * 14).rstrip(),
        ("word " * 6).rstrip(),
        path,
        "cannot be read.",
        f"  next: {path}",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "0.04 s"),
        (-1, "0.00 s"),
        (4.25, "4.25 s"),
        (42.25, "42.2 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("then", "text"),
    [(1000, "0s"), (1010, "0s"), (955, "45s"), (1000 - 720, "12m"), (None, "-")],
)
def test_ages_have_one_unit(then: int | None, text: str) -> None:
    assert age(then, now=1000.0) == text
