"""Clusters of a host that changes its address, or that have no tunnel yet, are due for renewal."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0007_moved_hosts.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Clusters would keep an address that their host left; restore a backup.")
