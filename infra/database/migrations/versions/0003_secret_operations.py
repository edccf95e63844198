"""Operations of secrets: a step may run when its operation holds the lock of its owner."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0003_secret_operations.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Operations of secrets would lose their steps; restore a backup instead.")
