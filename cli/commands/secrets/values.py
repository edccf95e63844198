"""Values on their way in and out: never in an argument, never changed by a byte."""

import base64
import getpass
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cli.client import JsonObject
from cli.errors import CliError, ExitCode
from cli.output import Output
from cli.private_files import write_private
from cli.session import Session
from cli.text import is_plain

MAXIMUM_BYTES = 64 * 1024
_BASE64 = "base64"

ValueFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read the value from there; without it, or with -, from standard input or a hidden "
        "prompt.",
    ),
]
OutputFileOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write it there, readable by you only."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]


def read_value(session: Session, file: Path | None) -> JsonObject:
    """Return the fields of a request that carry a value, byte for byte as it was given.

    Raises:
        CliError: there is none, it is too long, or it cannot be read.
    """
    data = _read_input("Value") if file is None or str(file) == "-" else _read_file(file)
    if len(data) > MAXIMUM_BYTES:
        message = f"The value is too long: a secret holds at most {MAXIMUM_BYTES} bytes."
        raise CliError(message, ExitCode.USAGE)
    if not data:
        message = "The value is empty: send it to standard input, or name a file (--value-file)."
        raise CliError(message, ExitCode.USAGE)
    if data.endswith(b"\n") and session.output.progress_console.is_terminal:
        session.output.note(
            ("The value ends with a line break, which is now a part of it. ", "yellow"),
            "Use printf %s instead of echo to have none.",
        )
    try:
        return {"value": data.decode()}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(data).decode(), "value_encoding": _BASE64}


def read_line(subject: str) -> str:
    """Return one line of standard input or of a hidden prompt, without the line break.

    Raises:
        CliError: there is none, or it is no text.
    """
    try:
        line = _read_input(subject, confirm=False).decode().strip()
    except UnicodeDecodeError:
        line = ""
    if not line:
        message = f"No {subject.lower()} was given: send it to standard input."
        raise CliError(message, ExitCode.USAGE)
    return line


def data_of(answer: JsonObject) -> bytes:
    """Return the bytes of a value as it travels in JSON."""
    text = str(answer["value"])
    return base64.b64decode(text) if answer.get("value_encoding") == _BASE64 else text.encode()


def refuse_unwritable(file: Path | None, *, force: bool) -> None:
    """Fail before a value is read, and audited, that could not be written.

    Raises:
        CliError: there is such a file, or no folder for it.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        message = f"There is no folder {file.parent}. Nothing was read."
        raise CliError(message, ExitCode.USAGE)
    if not force and os.path.lexists(file):
        message = f"{file} exists already; use --force to replace it. Nothing was read."
        raise CliError(message)


def hand_out(output: Output, answer: JsonObject, file: Path | None, *, force: bool) -> None:
    """Write a value to a file, or print it and nothing else.

    Raises:
        CliError: the file is there already, or the value would do something to the terminal.
    """
    data = data_of(answer)
    if file is not None:
        write_private(file, data, replace=force)
        if output.as_json:
            output.data({"file": str(file.absolute()), "bytes": len(data)})
        else:
            output.say(("✓ ", "green"), f"Wrote {file}, readable by you only.")
    elif output.as_json:
        output.data(answer)
    elif not output.prints_to_terminal:
        output.raw_bytes(data)
    elif _is_shown(data):
        output.raw_bytes(data if data.endswith(b"\n") else data + b"\n")
    else:
        message = "The value is no plain text, and a terminal would act on it: it is not shown."
        raise CliError(
            message, ExitCode.USAGE, next_commands=("the same command with --output FILE",)
        )


def _is_shown(data: bytes) -> bool:
    try:
        return is_plain(data.decode())
    except UnicodeDecodeError:
        return False


def _read_file(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return _read_bounded(opened)
    except OSError as error:
        message = f"Cannot read {file}: {error.strerror or error}."
        raise CliError(message, ExitCode.USAGE) from error


def _read_input(subject: str, *, confirm: bool = True) -> bytes:
    if not sys.stdin.isatty():
        return _read_bounded(sys.stdin.buffer)
    typed = _ask(f"{subject} (not shown): ")
    if confirm and typed and typed != _ask(f"{subject} again: "):
        message = "The two are not the same. Nothing was stored."
        raise CliError(message, ExitCode.USAGE)
    return typed.encode()


def _read_bounded(stream: BinaryIO) -> bytes:
    return stream.read(MAXIMUM_BYTES + 1)


def _ask(question: str) -> str:
    with warnings.catch_warnings():
        # Where typing cannot be hidden, Python would go on and show it.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(question)
        except getpass.GetPassWarning as error:
            message = "This terminal would show what is typed: use a file or a pipe."
            raise CliError(message, ExitCode.USAGE) from error
        except EOFError:
            return ""
