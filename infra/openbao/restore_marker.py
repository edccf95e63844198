"""What tells worker and API that the store was put back to an older state.

A restored snapshot has again what was purged since it was made. Whoever keeps the ledger of purges
compares `id` with the one that the ledger was last replayed for, and serves nothing in between.
"""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, Field

from infra.supervisor.files import write_atomically


class RestoreMarker(BaseModel):
    """One restore.

    Attributes:
        id: random; another one for each restore, also of the same snapshot.
        restored_at: when.
        snapshot_sha256: of what was put back, in hex.
    """

    id: str = Field(default_factory=lambda: uuid4().hex)
    restored_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    snapshot_sha256: str

    def write(self, file: Path) -> None:
        """Write it down, in place of an earlier one."""
        write_atomically(file, self.model_dump_json(indent=2) + "\n")


def read_restore_marker(file: Path | None) -> RestoreMarker | None:
    """Return the latest restore; None when there never was one."""
    if file is None or not file.exists():
        return None
    return RestoreMarker.model_validate_json(file.read_bytes())
