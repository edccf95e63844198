"""An operation's step says until when it is tried."""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0015_given_up.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Workers call the function as it is now; restore a backup instead.")
