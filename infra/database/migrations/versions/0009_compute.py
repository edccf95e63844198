"""Machines in clouds: accounts, stacks, and what was found in them."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0009_compute.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Servers in clouds would no longer be known; restore a backup instead.")
