"""Answers to requests with a request_id, of all methods alike."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the table; ids that made a run or a version go on being known, for as long as if they were of now."""
    op.create_table(
        "answers",
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("message", _KEY, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("fields", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_answers")),
    )
    op.create_index("ix_answers_create_time", "answers", ["create_time"], unique=False)
    _move("runs", "epochd.v1.TrainRequest", "'runs/' || run_id")
    _move("promotions", "", "'models/' || model || '/versions/' || version")
    op.drop_table("promotions")


def _move(table: str, message: str, name: str) -> None:
    """Remembers the ids of a table; what was answered is the name of what was made."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    answer = f"convert_to({name}, 'UTF8')" if postgresql else f"CAST({name} AS BLOB)"
    nothing = "''::bytea" if postgresql else "x''"
    now = int(time.time() * 1_000_000)
    op.execute(
        "INSERT INTO answers (request_id, message, fingerprint, fields, answer, create_time) "  # noqa: S608
        f"SELECT request_id, '{message}', fingerprint, {nothing}, {answer}, {now} FROM {table} "
        "WHERE request_id IS NOT NULL ON CONFLICT DO NOTHING"
    )
