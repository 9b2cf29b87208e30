"""The datasets by which runs are validated, which only their requests told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from google.protobuf.message import DecodeError

from epochd.v1.trainer_pb2 import TrainRequest

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_UNFINISHED = sa.text(
    "SELECT run_id FROM runs WHERE state NOT IN ('succeeded', 'failed', 'cancelled') ORDER BY run_id"
)
_REQUEST = sa.text("SELECT request FROM run_requests WHERE run_id = :run")
_SET = sa.text("UPDATE runs SET validation_dataset = :digest WHERE run_id = :run")


def upgrade() -> None:
    """Adds a column, and reads it out of the requests of runs that have not ended: others keep no dataset."""
    op.add_column("runs", sa.Column("validation_dataset", _KEY, nullable=True))
    op.create_index(
        "ix_runs_validation_dataset",
        "runs",
        ["validation_dataset"],
        sqlite_where=sa.text("validation_dataset IS NOT NULL"),
        postgresql_where=sa.text("validation_dataset IS NOT NULL"),
    )
    connection = op.get_bind()
    for run in connection.execute(_UNFINISHED).scalars().all():
        if digest := _digest(connection.scalar(_REQUEST, {"run": run})):
            connection.execute(_SET, {"digest": digest, "run": run})


def _digest(request: bytes | None) -> str:
    try:
        name = TrainRequest.FromString(bytes(request or b"")).validation.dataset
    except DecodeError:  # such a run fails when it is its turn
        return ""
    return name.removeprefix("datasets/")
