"""Worker bootstraps that ended long ago are forgotten."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0008_old_bootstraps.sql").read_text())


def downgrade() -> None:
    op.execute("DROP POLICY forget ON worker_bootstraps")
    op.execute("REVOKE DELETE ON worker_bootstraps FROM bulkhead_sweeper")
