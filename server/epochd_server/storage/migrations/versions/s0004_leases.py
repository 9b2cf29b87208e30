"""Claims: which server trains which run, and for how long it may be silent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds a table and columns; runs that are there have no owner: whoever starts next claims them."""
    op.create_table(
        "servers",
        sa.Column("server_id", _KEY, nullable=False),
        sa.Column("renewed", sa.BigInteger(), nullable=False),
        sa.Column("lease", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_servers")),
    )
    op.add_column("runs", sa.Column("owner", _KEY, nullable=True))
    op.add_column("runs", sa.Column("claim", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("wish", _KEY, nullable=True))
