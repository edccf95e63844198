"""Packages, installs and rollouts."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0010_rollouts.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("What is installed would no longer be known; restore a backup instead.")
