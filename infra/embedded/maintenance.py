"""The commands that save a stack, put it back, and replace its seal key."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console

from infra.embedded.archive import Manifest
from infra.embedded.backup import back_up, restore
from infra.embedded.console import progress_on, say
from infra.embedded.seal_rotation import RotatedSealKey, rotate_seal_key
from infra.embedded.stack import Stack

# Asks whether to go on after these words; raises where nobody is there to be asked.
Ask = Callable[[str], bool]

_MEBIBYTE = 1024 * 1024


class BackupSummary(BaseModel):
    """What `backup --json` and `restore --json` print."""

    archive: Path
    manifest: Manifest


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to those of `python -m infra.embedded`."""
    backup = commands.add_parser("backup", help="save a running stack into one private file")
    backup.add_argument("archive", type=Path, help="the file; must not exist")
    backup.add_argument(
        "--seal-key-to",
        type=Path,
        metavar="FILE",
        help="also copy the seal key, without which no backup opens; keep it somewhere else",
    )
    back = commands.add_parser("restore", help="replace the stack by what a backup holds")
    back.add_argument("archive", type=Path, help="the file that `backup` wrote")
    back.add_argument(
        "--seal-key", type=Path, metavar="FILE", help="its seal key, when that is not here"
    )
    back.add_argument("--yes", action="store_true", help="do not ask")
    rotate = commands.add_parser(
        "rotate-seal-key", help="replace the key that seals the secret store"
    )
    for command in (backup, back, rotate):
        command.add_argument("--json", action="store_true", help="for programs")


def run_backup(stack: Stack, chosen: argparse.Namespace) -> None:
    """Save the stack."""
    archive = chosen.archive.absolute()
    key_file = chosen.seal_key_to and chosen.seal_key_to.absolute()
    with progress_on(_console(chosen), "saved") as report:
        manifest = back_up(stack, archive, seal_key_to=key_file, report=report)
    if chosen.json:
        _print(BackupSummary(archive=archive, manifest=manifest))
        return
    size = archive.stat().st_size / _MEBIBYTE
    say(Console(), f"Saved to {archive} ({size:.1f} MiB, private).")
    if key_file is None:
        say(
            Console(),
            f"It opens with the seal key {manifest.seal_key_id} only, which is not in it: "
            "keep a copy of that elsewhere (SEAL_KEY_TO=FILE).",
        )
    else:
        say(
            Console(),
            f"The seal key {manifest.seal_key_id} is in {key_file}. Who has both files has every "
            "secret: keep them apart.",
        )


def run_restore(stack: Stack, chosen: argparse.Namespace, ask: Ask) -> bool:
    """Put a backup in the stack's place; False when the person did not want that."""
    directory = stack.home.directory
    has_data = stack.home.postgresql.exists() or stack.home.openbao.exists()
    if has_data and not chosen.yes:
        question = (
            f"This replaces every record and secret in {directory} by those of the backup; what "
            "is newer than that is lost."
        )
        if not ask(question):
            return False
    archive = chosen.archive.absolute()
    with progress_on(_console(chosen), "done") as report:
        manifest = restore(stack, archive, seal_key=chosen.seal_key, report=report)
    if chosen.json:
        _print(BackupSummary(archive=archive, manifest=manifest))
    else:
        made = manifest.created_at.isoformat(timespec="seconds")
        say(Console(), f"{directory} is what it was at {made}; `make up` starts the rest.")
    return True


def run_rotate_seal_key(stack: Stack, chosen: argparse.Namespace) -> None:
    """Replace the seal key."""
    with progress_on(_console(chosen), "done") as report:
        rotated = rotate_seal_key(stack, report)
    if chosen.json:
        _print(_Rotated.of(rotated))
        return
    say(
        Console(),
        f"The secret store is sealed with {rotated.current_id}. {rotated.previous_id} is removed; "
        "backups made before need a copy of it. Make a new one now: `make backup TO=FILE "
        "SEAL_KEY_TO=FILE`.",
    )


class _Rotated(BaseModel):
    previous_id: str
    current_id: str

    @classmethod
    def of(cls, rotated: RotatedSealKey) -> "_Rotated":
        return cls(previous_id=rotated.previous_id, current_id=rotated.current_id)


def _console(chosen: argparse.Namespace) -> Console:
    # What a program reads is alone on standard output.
    return Console(stderr=chosen.json)


def _print(answer: BaseModel) -> None:
    print(answer.model_dump_json(indent=2))
