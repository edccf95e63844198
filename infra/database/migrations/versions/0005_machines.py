"""Machines, worker bootstraps, and their operations."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0005_machines.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Joined servers would no longer be known; restore a backup instead.")
