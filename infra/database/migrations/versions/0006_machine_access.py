"""When a cluster's certificates were renewed; the workspace of a machine, found by its id."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0006_machine_access.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Machines would no longer name their workspaces; restore a backup instead.")
