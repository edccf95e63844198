"""Members of workspaces can be managed, and the operator makes users."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0013_members.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Nobody could be removed from a workspace; restore a backup instead.")
