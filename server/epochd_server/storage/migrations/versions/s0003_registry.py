"""Labels; canaries and the history of aliases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds columns and a table; each alias that is there begins its history where it points."""
    for table in ("runs", "models", "versions"):
        op.add_column(table, sa.Column("labels", sa.JSON(), nullable=True))
    op.add_column("aliases", sa.Column("canary", sa.Integer(), nullable=True))
    op.add_column("aliases", sa.Column("canary_hundredths", sa.Integer(), nullable=True))
    for name in ("move", "move_time"):
        op.add_column("aliases", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "alias_moves",
        sa.Column("model", _KEY, nullable=False),
        sa.Column("alias", _KEY, nullable=False),
        sa.Column("move", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("canary", sa.Integer(), nullable=True),
        sa.Column("canary_hundredths", sa.Integer(), nullable=True),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model"], ["models.model"], name=op.f("fk_alias_moves_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model", "alias", "move", name=op.f("pk_alias_moves")),
    )
    op.execute(
        "UPDATE aliases SET move = 1, "
        "move_time = (SELECT update_time FROM models WHERE models.model = aliases.model)"
    )
    op.execute(
        "INSERT INTO alias_moves (model, alias, move, version, time) "
        "SELECT model, alias, move, version, move_time FROM aliases"
    )
