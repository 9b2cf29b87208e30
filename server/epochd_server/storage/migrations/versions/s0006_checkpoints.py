"""Where runs in training are, and how many workers died of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds a table and a column; runs that are there have no checkpoints and begin anew."""
    op.add_column("runs", sa.Column("worker_deaths", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "checkpoints",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", _KEY, nullable=False),
        sa.Column("artifact", sa.Text(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_checkpoints_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_checkpoints")),
    )
