"""Scopes of workspace tokens, and secrets: what is known about values that are kept in OpenBao."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("secrets", "access"):
        op.execute(Path(__file__).with_name(f"0002_{part}.sql").read_text())


def downgrade() -> None:
    raise RuntimeError("Secrets would be left without their metadata; restore a backup instead.")
