"""Customers see what a rollout planned for their installs; its digest tells vendors no values."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0014_rollout_previews.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("What rollouts planned would be forgotten; restore a backup instead.")
