"""In which of a provider's accounts stacks and leaks are."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0011_cloud_accounts.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("It would be forgotten where things are; restore a backup instead.")
