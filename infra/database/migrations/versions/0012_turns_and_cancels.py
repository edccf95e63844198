"""What who gives out turns of rollouts needs to know, and who asked an operation to end."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0012_turns_and_cancels.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("It would be forgotten who asked for a cancel; restore a backup instead.")
