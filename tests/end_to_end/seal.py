"""A secret store that cannot open."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.end_to_end.stack import Bulkhead


@contextlib.contextmanager
def sealed(bulkhead: Bulkhead) -> Iterator[None]:
    """Run OpenBao with another key of the right length: it cannot open its store."""
    seal: Path = bulkhead.stack.home.openbao / "seal.key"
    kept = seal.with_suffix(".kept")
    bulkhead.stack.supervisor.stop("openbao", "openbao")
    shutil.copy2(seal, kept)
    seal.write_bytes(bytes(reversed(seal.read_bytes())))
    bulkhead.stack.supervisor.restart("openbao", "openbao")
    try:
        yield
    finally:
        bulkhead.stack.supervisor.stop("openbao", "openbao")
        kept.replace(seal)
        bulkhead.stack.up()
