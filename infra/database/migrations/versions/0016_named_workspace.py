"""A user of several workspaces names the one in which a request acts."""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0016_named_workspace.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Requests would act in workspaces that nobody named; restore a backup instead.")
