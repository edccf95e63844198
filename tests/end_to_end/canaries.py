"""Values that are planted, and everything of a stack in which they are looked for."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from infra.openbao.policies import WORKER
from infra.temporal.client import TemporalConnection
from tests.end_to_end.stack import Bulkhead
from tests.histories import opened, texts_of

# Where a secret belongs: a cluster's own directory, the files whose paths are settings, and what
# the owner was told. OpenBao's store is encrypted, so it is searched like everything else.
OWN_FILES = (
    "control-planes/cp-*/pki/*",
    "control-planes/cp-*/encryption.yaml",
    "passwords/*",
    "openbao/*.key",
    "owner.env",
)


class Canaries(dict[str, bytes]):
    """What is looked for, by the name of what it is."""

    def new(self, name: str) -> str:
        """Return a fresh value to plant somewhere; from now on it is looked for everywhere else."""
        value = f"canary-{uuid4().hex}"
        self[name] = value.encode()
        return value

    def found_in(self, places: dict[str, bytes]) -> list[tuple[str, str]]:
        """Return which of them stand where, as they are or in base64."""
        return [
            (name, place)
            for place, content in places.items()
            for name, value in self.items()
            if value in content or base64.b64encode(value).rstrip(b"=")[:-1] in content
        ]


def other_files(home: Path) -> dict[str, bytes]:
    """Return what is in all other files of a home, by their paths in it."""
    own = {path for pattern in OWN_FILES for path in home.glob(pattern)}
    return {
        str(path.relative_to(home)): content_of(path)
        for path in files_below(home)
        if path not in own and not path.is_relative_to(home / "programs")
    }


def files_below(directory: Path) -> Iterator[Path]:
    # Unlike `rglob` it bears that a running server removes a folder meanwhile.
    for folder, _, names in os.walk(directory):
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def content_of(path: Path) -> bytes:
    """Return what a file holds; nothing when a running server has removed it meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


async def histories(bulkhead: Bulkhead) -> tuple[bytes, bytes]:
    """Return all histories as Temporal keeps them, and what is in their payloads."""
    stack = bulkhead.stack
    connection = TemporalConnection(stack.temporal, stack.openbao(WORKER), WORKER)
    client = await connection.client()
    kept: list[bytes] = []
    inside: list[bytes] = []
    async for found in client.list_workflows():
        handle = client.get_workflow_handle(found.id, run_id=found.run_id)
        history = await handle.fetch_history()
        kept += [history.to_json().encode(), *texts_of(history.to_json_dict())]
        inside += texts_of(await opened(history, connection.codec))
    connection.close()
    return b"\n".join(kept), b"\n".join(inside)


def processes_seen() -> bytes:
    seen = b""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                seen += (process / name).read_bytes() + b"\n"
            except OSError:
                continue
    return seen
