"""The tables. What is searched or sorted by is a column; what is only carried along is a codec's bytes.

Times are microseconds since 1970 in UTC, the same on every database. Text keys compare by byte, so that ULIDs
sort by age everywhere. Changes here need a migration: a test holds this file against ``migrations/``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

HEAD = "0009"
"""The newest migration."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(time: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The UTC time of so many microseconds since 1970."""
    return _EPOCH + micros * _MICROSECOND


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_KEY = String().with_variant(String(collation="C"), "postgresql")
_LABELS = JSON(none_as_null=True)
"""A JSON object of texts by key; NULL: there are none."""

runs = Table(
    "runs",
    metadata,
    Column("run_id", _KEY, primary_key=True),
    Column("state", _KEY, nullable=False),
    Column("model", _KEY, nullable=False),
    Column("client", Text, nullable=False),
    # Not written any more: answers has it. SQLite cannot drop a unique column without copying every log.
    Column("request_id", _KEY, unique=True),
    Column("fingerprint", LargeBinary, nullable=False),
    # The datasets with its rows and with its held-out rows.
    Column("dataset", _KEY),
    Column("validation_dataset", _KEY),
    Column("spec", LargeBinary, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("version", Integer),
    Column("latest_sequence", BigInteger, nullable=False),
    # The newest epoch log without its parameters: lists of runs stay small. A loss that is NaN is NULL.
    Column("log_epoch", BigInteger),
    Column("log_loss", Double),
    Column("log_lr", Double),
    Column("log_rows_per_second", Double),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    Column("failure_hint", Text),
    Column("failure_epoch", BigInteger),
    Column("labels", _LABELS),
    # The server that trains it, if that is still in ``servers``. The claim is the fencing token: it is counted up
    # whenever the run gets an owner, and whoever writes of a run must name the claim by which it has it.
    Column("owner", _KEY),
    Column("claim", BigInteger, nullable=False, server_default="0"),
    # What a client asked of the owner, which may be another server than the client's: a Wish; or what another server
    # asked of it: "adopt".
    Column("wish", _KEY),
    # Workers that died while they trained it.
    Column("worker_deaths", Integer, nullable=False, server_default="0"),
    Index("ix_runs_state_run_id", "state", "run_id"),
    Index("ix_runs_model_run_id", "model", "run_id"),
    Index(
        "ix_runs_dataset",
        "dataset",
        sqlite_where=text("dataset IS NOT NULL"),
        postgresql_where=text("dataset IS NOT NULL"),
    ),
    Index(
        "ix_runs_validation_dataset",
        "validation_dataset",
        sqlite_where=text("validation_dataset IS NOT NULL"),
        postgresql_where=text("validation_dataset IS NOT NULL"),
    ),
)

# The servers that share this database and live. One that was not heard of for its lease is deleted by another.
servers = Table(
    "servers",
    metadata,
    Column("server_id", _KEY, primary_key=True),
    # The database's clock when it was last heard of: no other clock is compared with it.
    Column("renewed", BigInteger, nullable=False),
    # Microseconds that it may be silent.
    Column("lease", BigInteger, nullable=False),
)

# The requests as they came, data included: apart, so that runs stay quick to scan.
run_requests = Table(
    "run_requests",
    metadata,
    Column("run_id", _KEY, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("request", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run_id", _KEY, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Where runs in training are: the last two of each, in ``data``, or in the artifact.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("run_id", _KEY, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    # SHA-256 of the file's bytes, in hex.
    Column("digest", _KEY, nullable=False),
    Column("artifact", Text),
    Column("data", LargeBinary),
)

models = Table(
    "models",
    metadata,
    Column("model", _KEY, primary_key=True),
    # The highest number ever given: none is given twice.
    Column("last_version", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("labels", _LABELS),
)

versions = Table(
    "versions",
    metadata,
    Column("model", _KEY, ForeignKey("models.model", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    # The run that trained it, or, for a promoted member, an id that no other version ever had.
    Column("run_id", _KEY, nullable=False, unique=True),
    Column("create_time", BigInteger, nullable=False),
    Column("card", LargeBinary, nullable=False),
    # SHA-256 of the safetensors bytes, in hex.
    Column("weights_digest", _KEY, nullable=False),
    Column("weights_size", BigInteger, nullable=False),
    # The artifact that holds them; NULL: they are in version_weights.
    Column("weights_artifact", Text),
    Column("labels", _LABELS),
)

version_weights = Table(
    "version_weights",
    metadata,
    Column("model", _KEY, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], ondelete="CASCADE"),
)

# What became of the members of a fleet: an Arrow file in ``data``, or in the artifact.
version_members = Table(
    "version_members",
    metadata,
    Column("model", _KEY, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    # SHA-256 of the file's bytes, in hex.
    Column("digest", _KEY, nullable=False),
    Column("artifact", Text),
    Column("data", LargeBinary),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], ondelete="CASCADE"),
)

# What requests with a request_id were answered, for a while.
answers = Table(
    "answers",
    metadata,
    Column("request_id", _KEY, primary_key=True),
    # The full name of the request's message; empty where only the fingerprint tells what was asked.
    Column("message", _KEY, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    # What is kept of the request to name the field in which another differs: codec/asked.py.
    Column("fields", LargeBinary, nullable=False),
    # The response; or the name of what was made. NULL only within the transaction that finds it out.
    Column("answer", LargeBinary),
    Column("create_time", BigInteger, nullable=False),
    Index("ix_answers_create_time", "create_time"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", _KEY, primary_key=True),
    Column("alias", _KEY, primary_key=True),
    Column("version", Integer, nullable=False),
    # A second version for some keys, of 10,000; both NULL or none.
    Column("canary", Integer),
    Column("canary_hundredths", Integer),
    # The number and the time of its newest move, which is in alias_moves, too.
    Column("move", BigInteger, nullable=False, server_default="0"),
    Column("move_time", BigInteger, nullable=False, server_default="0"),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    Index("ix_aliases_model_version", "model", "version"),
)

# Where aliases have pointed, while the model is there: the versions, and the alias itself, may be deleted.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("model", _KEY, ForeignKey("models.model", ondelete="CASCADE"), primary_key=True),
    Column("alias", _KEY, primary_key=True),
    Column("move", BigInteger, primary_key=True, autoincrement=False),
    # NULL: the alias was deleted.
    Column("version", Integer),
    Column("canary", Integer),
    Column("canary_hundredths", Integer),
    Column("time", BigInteger, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("digest", _KEY, primary_key=True),
    Column("format", _KEY, nullable=False),
    Column("rows", BigInteger, nullable=False),
    # JSON: a list of [name, dtype or null].
    Column("columns", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    # The artifact with the rows and the SHA-256 of its bytes, in hex. NULL: of a server that named it by the digest
    # alone, and noted no digest of the artifact.
    Column("artifact", Text),
    Column("file_digest", _KEY),
    Index("ix_datasets_create_time_digest", "create_time", "digest"),
)

# The one row says which artifacts are those of this database: storage/pairing.py.
artifact_stores = Table(
    "artifact_stores",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    # The name of the mark among them.
    Column("mark", _KEY, nullable=False),
    # Where they were when a server last started, for people.
    Column("place", Text, nullable=False),
)
