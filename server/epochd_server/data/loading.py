"""Stored datasets: Arrow IPC files, memory-mapped, as the columns of a training.

Of the file only the rows that are asked for are read: a fleet's part needs the memory of its own rows.

Legend: N rows that are read, d features, t targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from epochd_server.data.arrow_types import from_numpy, is_text, kind_of, numpy_name, to_numpy
from epochd_server.data.features import prepare_features
from epochd_server.data.fitness import UnusableRows
from epochd_server.data.preprocessing.features import prepare_transformed
from epochd_server.data.selection import select
from epochd_server.data.targets import load_targets
from epochd_server.data.texts import encode_arrow
from epochd_server.data.weights import prepare_weights
from epochd_server.domain.data import ColumnKind, TrainingArrays
from epochd_server.domain.datasets import DatasetColumn, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.specs import Precision, TrainingSpec
from epochd_server.domain.work import DatasetFile, RowChoice

DATASET = "data.dataset"
_NOTHING = np.array([None], dtype=object)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Rows that lie in one batch of the file.

    Attributes:
        batch: The batch.
        numbers: Which of its rows, ascending; None is all of them.
        places: Where among the N rows they belong.
    """

    batch: pa.RecordBatch
    numbers: NDArray[np.int64] | None
    places: slice | NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.batch) if self.numbers is None else len(self.numbers)

    def column(self, index: int) -> pa.Array:
        """The rows' values in a column."""
        column = self.batch.column(index)
        return column if self.numbers is None else column.take(from_numpy(self.numbers))

    def numeric(self, index: int) -> NDArray[np.generic]:
        """The rows' numbers in a column; missing ones are NaN."""
        column = self.batch.column(index)
        if self.numbers is None or column.null_count or pa.types.is_boolean(column.type):
            return to_numpy(self.column(index))
        return to_numpy(column)[self.numbers]


class ArrowColumns:
    """The columns of a stored dataset; what is read of the file stays in the page cache.

    Args:
        path: The file.
        rows: Which of its rows are meant.

    Raises:
        EpochdError: DATASET_NOT_FOUND where there is no such file, ARTIFACT_CORRUPT where it is no Arrow file.
    """

    field = DATASET

    def __init__(self, path: Path | str, rows: RowChoice = None) -> None:
        try:
            with pa.memory_map(str(path)) as source:
                reader = ipc.open_file(source)
                batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        except FileNotFoundError:
            raise EpochdError(Reason.DATASET_NOT_FOUND) from None
        except pa.ArrowException:
            raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
        self._schema = reader.schema
        self._pieces = list(_pieces(batches, rows))
        self.names = tuple(self._schema.names)
        self.rows = sum(map(len, self._pieces))

    def summary(self) -> DatasetSummary:
        """Rows and columns."""
        columns = tuple(DatasetColumn(field.name, numpy_name(field.type)) for field in self._schema)
        return DatasetSummary(self.rows, columns)

    def column_field(self, index: int) -> str:
        """Path of the dataset: it has no columns in the request."""
        return DATASET

    def kind(self, index: int) -> ColumnKind:
        """What a column holds."""
        return kind_of(self._schema.field(index).type)

    def is_text(self, index: int) -> bool:
        """Whether a column holds text."""
        return is_text(self._schema.field(index).type)

    def is_integer(self, index: int) -> bool:
        """Whether a column holds integers or truth values; some may be missing."""
        stored = self._schema.field(index).type
        return bool(pa.types.is_integer(stored) or pa.types.is_boolean(stored))

    def codes(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """A text column as numbers; nothing of it becomes Python strings but the distinct texts."""
        column = pa.chunked_array([piece.column(index) for piece in self._pieces], pa.string())
        texts, codes = encode_arrow(column)
        return texts, self._placed([codes])

    def values(self, index: int) -> NDArray[np.generic]:
        """[N]; missing text is None, and a column of integers with missing values is float64 with NaN."""
        if self.is_text(index):
            # Rows of the same text share one string; the position of missing ones, -1, is that of the None.
            texts, codes = self.codes(index)
            return np.append(texts, _NOTHING)[codes]
        if not self.rows:
            return np.empty(0)
        return self._placed([piece.numeric(index) for piece in self._pieces])

    def fill(self, indices: Sequence[int], out: NDArray[np.floating]) -> None:
        """Writes numeric columns into ``out``, a batch at a time."""
        for piece in self._pieces:
            for position, index in enumerate(indices):
                out[piece.places, position] = piece.numeric(index)

    def _placed(self, values: Sequence[NDArray[np.generic]]) -> NDArray[Any]:
        """Values in the order of the pieces, as [N]."""
        joined = values[0] if len(values) == 1 else np.concatenate(values)
        places = [piece.places for piece in self._pieces if isinstance(piece.places, np.ndarray)]
        if not places:
            return joined
        placed = np.empty_like(joined)
        placed[np.concatenate(places)] = joined
        return placed


def read_schema(path: Path | str) -> DatasetSummary:
    """Rows and columns of a stored dataset.

    Raises:
        EpochdError: DATASET_NOT_FOUND or ARTIFACT_CORRUPT.
    """
    return ArrowColumns(path).summary()


def load_training_arrays(file: DatasetFile, spec: TrainingSpec) -> TrainingArrays:
    """The arrays of a training that was planned on a dataset.

    Args:
        file: Where its rows are, and what planning found out about them.
        spec: What is trained; loss and precision decide the arrays' types.

    Returns:
        The rows of ``file.rows``; those of members that are unfit may hold anything.

    Raises:
        EpochdError: DATASET_NOT_FOUND or ARTIFACT_CORRUPT; InvalidInput where the data does not fit the plan.
    """
    columns, violations = ArrowColumns(file.path, file.rows), Violations()
    if file.groups is not None and columns.rows != file.groups.offsets[-1]:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    selection = select(columns.names, file.roles, violations)
    violations.raise_if_any()
    # What is unusable in a fleet's rows is known already.
    unusable = None if file.groups is None else UnusableRows()
    features = _features(file, columns, selection.features, spec.data_precision, violations, unusable)
    weights = prepare_weights(columns, selection.weight, spec.data_precision, violations, unusable)
    targets = load_targets(
        columns,
        selection.targets,
        spec.loss,
        spec.data_precision,
        file.classes,
        is_fleet=file.groups is not None,
    )
    violations.raise_if_any()
    if features is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    roles = selection.roles(columns.names)
    return TrainingArrays(
        features=features,
        targets=targets,
        feature_columns=roles.features if file.preprocess is None else file.preprocess.outputs,
        target_columns=roles.targets,
        classes=file.classes,
        groups=file.groups,
        weights=weights,
        validation=_load_validation(file, spec),
        folds=file.folds,
    )


def _load_validation(file: DatasetFile, spec: TrainingSpec) -> TrainingArrays | None:
    if isinstance(file.validation, DatasetFile):
        return load_training_arrays(file.validation, spec)
    return file.validation


def _features(
    file: DatasetFile,
    columns: ArrowColumns,
    indices: Sequence[int],
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None,
) -> NDArray[np.floating] | None:
    if file.preprocess is None:
        return prepare_features(columns, indices, precision, violations, unusable)
    members = None
    if file.groups is not None:
        members = np.repeat(np.arange(len(file.groups.offsets) - 1), np.diff(file.groups.offsets))
    return prepare_transformed(file.preprocess, columns, precision, violations, unusable, members)


def _pieces(batches: Sequence[pa.RecordBatch], rows: RowChoice) -> Iterator[_Piece]:
    """The batches' rows that are chosen; in the order of the file."""
    if isinstance(rows, np.ndarray):
        yield from _picked(batches, rows)
        return
    first, last, step = (rows or slice(None)).indices(sum(map(len, batches)))
    if step != 1:
        raise ValueError("rows are chosen by ranges without steps")
    begin = place = 0
    for batch in batches:
        low, high = max(first - begin, 0), min(last - begin, len(batch))
        begin += len(batch)
        if low < high:
            yield _Piece(batch.slice(low, high - low), None, slice(place, place + high - low))
            place += high - low


def _picked(batches: Sequence[pa.RecordBatch], rows: NDArray[np.integer]) -> Iterator[_Piece]:
    places = np.argsort(rows)
    numbers = rows[places].astype(np.int64)
    ends = np.cumsum([len(batch) for batch in batches])
    cuts = np.searchsorted(numbers, ends).tolist()
    first = 0
    for batch, end, last in zip(batches, ends.tolist(), cuts, strict=True):
        if last > first:
            yield _Piece(batch, numbers[first:last] - (end - len(batch)), places[first:last])
        first = last
