"""Where the rows of datasets are, and the digest of their files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds columns; datasets that are there keep the names that their files had."""
    op.add_column("datasets", sa.Column("artifact", sa.Text(), nullable=True))
    op.add_column("datasets", sa.Column("file_digest", _KEY, nullable=True))
