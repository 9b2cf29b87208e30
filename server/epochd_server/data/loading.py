"""Stored datasets: Arrow IPC files, memory-mapped, as the columns of a training.

Of the file only the rows that are asked for are read: a fleet's part needs the memory of its own rows.

Legend: N rows that are read, d features, t targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from epochd_server.data.arrays import ArrayReader, Arrays
from epochd_server.data.arrow_files import ArrowFile, Piece, bounds
from epochd_server.data.arrow_types import is_text, kind_of, numpy_name
from epochd_server.data.large_loading import write_rows
from epochd_server.data.selection import select
from epochd_server.data.texts import encode_arrow
from epochd_server.domain.data import ColumnKind, ColumnRoles, TrainingArrays
from epochd_server.domain.datasets import DatasetColumn, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.work import DatasetFile, RowChoice

DATASET = "data.dataset"
_NOTHING = np.array([None], dtype=object)


class ArrowColumns:
    """The columns of a stored dataset; what is read of the file stays in the page cache.

    Args:
        path: The file, or as it is mapped already.
        rows: Which of its rows are meant.

    Raises:
        EpochdError: DATASET_NOT_FOUND where there is no such file, ARTIFACT_CORRUPT where it is no Arrow file.
    """

    field = DATASET

    def __init__(self, path: Path | str | ArrowFile, rows: RowChoice = None) -> None:
        self._file = file = path if isinstance(path, ArrowFile) else ArrowFile(path)
        if isinstance(rows, np.ndarray):
            first, last = 0, int(np.count_nonzero(rows < file.rows))
        else:
            first, last = bounds(rows, file.rows)
        self._chosen = rows if isinstance(rows, np.ndarray) else slice(first, last)
        self._schema = file.schema
        self._read: list[Piece] | None = None
        self.names = tuple(self._schema.names)
        self.rows = last - first

    @property
    def _pieces(self) -> list[Piece]:
        if self._read is None:
            self._read = list(self._file.pieces(self._chosen))
        return self._read

    def parts(self, rows: int) -> Iterator[tuple[int, ArrowColumns]]:
        """All rows, at most so many at a time, with the place of the first of each; pages are let go of in between."""
        for first in range(0, self.rows, rows):
            last = min(first + rows, self.rows)
            chosen = self._chosen
            if isinstance(chosen, slice):
                part: RowChoice = slice(chosen.start + first, chosen.start + last)
            else:
                part = chosen[first:last]
            yield first, ArrowColumns(self._file, part)
            self._file.release()

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
        The rows of ``file.rows``; those of members that are unfit may hold anything. Large ones are mapped from files.

    Raises:
        EpochdError: DATASET_NOT_FOUND, ARTIFACT_CORRUPT, or STORAGE_UNAVAILABLE where the disk has no room;
            InvalidInput where the data does not fit the plan.
    """
    columns, violations = ArrowColumns(file.path, file.rows), Violations()
    if file.groups is not None and columns.rows != file.groups.offsets[-1]:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    selection = select(columns.names, file.roles, violations)
    violations.raise_if_any()
    reader = ArrayReader(file, spec, selection)
    if file.large:
        rows, held_out = write_rows(file, columns, reader)
    else:
        rows, held_out = reader.read(columns), None
    arrays = _training_arrays(file, selection.roles(columns.names), rows)
    if held_out is not None:
        return replace(arrays, validation=_training_arrays(file, selection.roles(columns.names), held_out))
    if isinstance(file.validation, DatasetFile):
        return replace(arrays, validation=load_training_arrays(file.validation, spec))
    return replace(arrays, validation=file.validation, folds=file.folds)


def _training_arrays(file: DatasetFile, roles: ColumnRoles, rows: Arrays) -> TrainingArrays:
    return TrainingArrays(
        features=rows.features,
        targets=rows.targets,
        feature_columns=roles.features if file.preprocess is None else file.preprocess.outputs,
        target_columns=roles.targets,
        classes=file.classes,
        groups=file.groups,
        weights=rows.weights,
    )
