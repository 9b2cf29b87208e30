"""Which artifacts are those of this database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the table; the first server that starts writes its row, and marks its artifacts."""
    op.create_table(
        "artifact_stores",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mark", _KEY, nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_artifact_stores")),
    )
