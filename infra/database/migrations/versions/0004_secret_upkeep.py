"""What keeps the secret store in order: its state, and how far its audit logs were compared."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0004_secret_upkeep.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("An older restored state would no longer be noticed; restore a backup.")
