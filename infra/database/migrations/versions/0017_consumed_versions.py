"""An install's secret says which version everything there works with."""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("0017_consumed_versions.sql").read_text())


def downgrade() -> None:
    op.drop_column("install_secrets", "consumed_version_id")
