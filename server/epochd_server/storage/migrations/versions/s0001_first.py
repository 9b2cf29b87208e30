"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates every table."""
    op.create_table(
        "datasets",
        sa.Column("digest", _KEY, nullable=False),
        sa.Column("format", _KEY, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_datasets")),
    )
    op.create_index("ix_datasets_create_time_digest", "datasets", ["create_time", "digest"], unique=False)
    op.create_table(
        "models",
        sa.Column("model", _KEY, nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_models")),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("state", _KEY, nullable=False),
        sa.Column("model", _KEY, nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("request_id", _KEY, nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("dataset", _KEY, nullable=True),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("latest_sequence", sa.BigInteger(), nullable=False),
        sa.Column("log_epoch", sa.BigInteger(), nullable=True),
        sa.Column("log_loss", sa.Double(), nullable=True),
        sa.Column("log_lr", sa.Double(), nullable=True),
        sa.Column("log_rows_per_second", sa.Double(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("failure_hint", sa.Text(), nullable=True),
        sa.Column("failure_epoch", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
        sa.UniqueConstraint("request_id", name=op.f("uq_runs_request_id")),
    )
    op.create_index(
        "ix_runs_dataset",
        "runs",
        ["dataset"],
        unique=False,
        sqlite_where=sa.text("dataset IS NOT NULL"),
        postgresql_where=sa.text("dataset IS NOT NULL"),
    )
    op.create_index("ix_runs_model_run_id", "runs", ["model", "run_id"], unique=False)
    op.create_index("ix_runs_state_run_id", "runs", ["state", "run_id"], unique=False)
    op.create_table(
        "events",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_events_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "sequence", name=op.f("pk_events")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_requests",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_run_requests_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_requests")),
    )
    op.create_table(
        "versions",
        sa.Column("model", _KEY, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("card", sa.LargeBinary(), nullable=False),
        sa.Column("weights_digest", _KEY, nullable=False),
        sa.Column("weights_size", sa.BigInteger(), nullable=False),
        sa.Column("weights_artifact", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model"], ["models.model"], name=op.f("fk_versions_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_versions")),
        sa.UniqueConstraint("run_id", name=op.f("uq_versions_run_id")),
    )
    op.create_table(
        "aliases",
        sa.Column("model", _KEY, nullable=False),
        sa.Column("alias", _KEY, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["versions.model", "versions.version"], name=op.f("fk_aliases_versions")
        ),
        sa.PrimaryKeyConstraint("model", "alias", name=op.f("pk_aliases")),
    )
    op.create_index("ix_aliases_model_version", "aliases", ["model", "version"], unique=False)
    op.create_table(
        "version_weights",
        sa.Column("model", _KEY, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["versions.model", "versions.version"],
            name=op.f("fk_version_weights_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_version_weights")),
    )
