"""Datasets as rows, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from epochd_server.domain.datasets import Dataset, DatasetColumn, DatasetFormat
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import dataset_name
from epochd_server.domain.runs import RunState
from epochd_server.storage.schema import datasets, from_micros, runs, to_micros
from epochd_server.storage.statements import AnyRow, insert_into

_UNFINISHED = [state.value for state in RunState if not state.is_terminal]


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """Where the rows of a dataset are.

    Attributes:
        artifact: The Arrow file.
        digest: SHA-256 of its bytes in hex; None: of a server that did not note it.
    """

    artifact: str
    digest: str | None

    @property
    def facts(self) -> str:
        """The artifact with what was computed of the rows, if that was ever asked for."""
        return f"{self.artifact.removesuffix('.arrow')}.facts.json"


def insert(connection: Connection, dataset: Dataset, file: DatasetFile) -> tuple[Dataset, DatasetFile]:
    """Stores the dataset, or finds the one that a simultaneous upload of the same bytes made."""
    values = {
        "digest": dataset.digest,
        "format": dataset.format.value,
        "rows": dataset.rows,
        "columns": json.dumps([[column.name, column.dtype] for column in dataset.columns]),
        "size_bytes": dataset.size_bytes,
        "create_time": to_micros(dataset.create_time),
        "artifact": file.artifact,
        "file_digest": file.digest,
    }
    connection.execute(insert_into(connection, datasets).on_conflict_do_nothing(), values)
    row = connection.execute(select(datasets).where(datasets.c.digest == dataset.digest)).one()
    return to_dataset(row), to_file(row)


def file_of(connection: Connection, digest: str) -> DatasetFile:
    """Where a dataset's rows are.

    Raises:
        EpochdError: DATASET_NOT_FOUND.
    """
    row = connection.execute(select(datasets).where(datasets.c.digest == digest)).one_or_none()
    if row is None:
        raise no_dataset(digest)
    return to_file(row)


def to_file(row: AnyRow) -> DatasetFile:
    """Where the rows of a dataset's row of the table are."""
    return DatasetFile(row.artifact or f"datasets/{row.digest}.arrow", row.file_digest)


def to_dataset(row: AnyRow) -> Dataset:
    """The dataset of a row."""
    return Dataset(
        digest=row.digest,
        format=DatasetFormat(row.format),
        rows=row.rows,
        columns=tuple(DatasetColumn(name, dtype) for name, dtype in json.loads(row.columns)),
        size_bytes=row.size_bytes,
        create_time=from_micros(row.create_time),
    )


def is_used(digest: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Condition of runs: they have not ended, and train or validate with the dataset."""
    reads = or_(runs.c.dataset == digest, runs.c.validation_dataset == digest)
    return and_(reads, runs.c.state.in_(_UNFINISHED))


def no_dataset(digest: str) -> EpochdError:
    """DATASET_NOT_FOUND, naming it."""
    return EpochdError(Reason.DATASET_NOT_FOUND, metadata={"name": dataset_name(digest)})
