"""Files that hold a credential: never readable by others, never half-written, never followed."""

import os
import secrets
import stat
from pathlib import Path

from cli.errors import CliError

_OWNER_ONLY = 0o600
_OTHERS = 0o077


def write_private(path: Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a file that only its owner can read, in one step.

    The content goes to a new file beside the target that is created 0600, is flushed to the
    disk, and then takes the target's name: at no moment is there a readable or a partial file.

    Args:
        path: the target; its folder is created (0700) when missing.
        content: the text, which is written as UTF-8, or the bytes.
        replace: whether a file that is there already may be replaced.

    Raises:
        CliError: the target exists and must not be replaced, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, content, replace=replace)
    except OSError as error:
        message = f"Cannot write {path}: {error.strerror or error}."
        raise CliError(message) from error


def _write(path: Path, content: str | bytes, *, replace: bool) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            _take_free_name(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _take_free_name(temporary: Path, path: Path) -> None:
    # link() refuses an existing name where rename() would overwrite it.
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        message = f"{path} exists already; use --force to replace it."
        raise CliError(message) from error
    temporary.unlink()


def read_private(path: Path) -> str | None:
    """Read a file that holds a credential; None when there is none.

    Raises:
        CliError: it belongs to somebody else, others can read it, or it cannot be read. A file of
            another user is not believed: it would decide to whom this user's requests go.
    """
    try:
        with path.open(encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid():
                message = f"{path} belongs to another user and is not used."
                raise CliError(message, next_commands=("bulkhead login --url URL",))
            if stat.S_IMODE(facts.st_mode) & _OTHERS:
                message = f"{path} holds a credential and others can read it."
                raise CliError(message, next_commands=(f"chmod 600 {path}",))
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read {path}: {error}."
        raise CliError(message) from error
