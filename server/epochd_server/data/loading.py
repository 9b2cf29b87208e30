"""Stored datasets: Arrow IPC files, memory-mapped, as the columns of a training.

Legend: N rows, d features, t targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from epochd_server.data.arrow_types import numpy_name
from epochd_server.data.assembly import Fleet, assemble
from epochd_server.data.features import prepare_features
from epochd_server.data.fitness import UnusableRows, unfit_members
from epochd_server.data.grouping import assign_members
from epochd_server.data.selection import select
from epochd_server.data.targets import Targets, load_targets
from epochd_server.data.texts import encode_arrow
from epochd_server.data.weights import prepare_weights
from epochd_server.domain.data import Classes, ColumnRoles, TrainingArrays
from epochd_server.domain.datasets import DatasetColumn, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.specs import TrainingSpec

DATASET = "data.dataset"
_NOTHING = np.array([None], dtype=object)


class ArrowColumns:
    """The columns of a stored dataset; what is read of the file stays in the page cache.

    Raises:
        EpochdError: DATASET_NOT_FOUND where there is no such file, ARTIFACT_CORRUPT where it is no Arrow file.
    """

    field = DATASET

    def __init__(self, path: Path | str) -> None:
        try:
            with pa.memory_map(str(path)) as source:
                self._table = ipc.open_file(source).read_all()
        except FileNotFoundError:
            raise EpochdError(Reason.DATASET_NOT_FOUND) from None
        except pa.ArrowException:
            raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
        self.names = tuple(self._table.column_names)
        self.rows = int(self._table.num_rows)

    def summary(self) -> DatasetSummary:
        """Rows and columns."""
        columns = tuple(DatasetColumn(field.name, numpy_name(field.type)) for field in self._table.schema)
        return DatasetSummary(self.rows, columns)

    def column_field(self, index: int) -> str:
        """Path of the dataset: it has no columns in the request."""
        return DATASET

    def is_text(self, index: int) -> bool:
        """Whether a column holds text."""
        return numpy_name(self._table.schema.field(index).type) is None

    def is_integer(self, index: int) -> bool:
        """Whether a column holds integers or truth values; some may be missing."""
        stored = self._table.schema.field(index).type
        return bool(pa.types.is_integer(stored) or pa.types.is_boolean(stored))

    def codes(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """A text column as numbers; nothing of it becomes Python strings but the distinct texts."""
        return encode_arrow(self._table.column(index))

    def values(self, index: int) -> NDArray[np.generic]:
        """[N]; missing text is None, and a column of integers with missing values is float64 with NaN."""
        column = self._table.column(index)
        if self.is_text(index):
            # Rows of the same text share one string; the position of missing ones, -1, is that of the None.
            texts, codes = encode_arrow(column)
            return np.append(texts, _NOTHING)[codes]
        if not self.rows:
            return np.empty(0)
        return np.concatenate([_numbers(chunk) for chunk in column.chunks])

    def fill(self, indices: Sequence[int], out: NDArray[np.floating]) -> None:
        """Writes numeric columns into ``out``, a chunk at a time."""
        for position, index in enumerate(indices):
            start = 0
            for chunk in self._table.column(index).chunks:
                out[start : start + len(chunk), position] = _numbers(chunk)
                start += len(chunk)


def read_schema(path: Path | str) -> DatasetSummary:
    """Rows and columns of a stored dataset.

    Raises:
        EpochdError: DATASET_NOT_FOUND or ARTIFACT_CORRUPT.
    """
    return ArrowColumns(path).summary()


def load_training_arrays(
    path: Path | str, roles: ColumnRoles, spec: TrainingSpec, classes: Classes | None
) -> TrainingArrays:
    """The arrays of a training that was planned on this dataset.

    Args:
        path: The stored dataset.
        roles: Which columns are learned from and predicted.
        spec: What is trained; loss and precision decide the arrays' types.
        classes: The classes that planning found; None for a regression.

    Raises:
        EpochdError: DATASET_NOT_FOUND or ARTIFACT_CORRUPT; InvalidInput where the data does not fit the plan.
    """
    columns, violations = ArrowColumns(path), Violations()
    selection = select(columns.names, roles, violations)
    violations.raise_if_any()
    unusable = UnusableRows() if roles.groups else None
    features = prepare_features(columns, selection.features, spec.precision, violations, unusable)
    weights = prepare_weights(columns, selection.weight, spec.precision, violations, unusable)
    targets = load_targets(columns, selection.targets, spec.loss, spec.precision, classes, unusable)
    fleet = None
    if unusable is not None:
        assignment = assign_members(columns, selection.groups, columns.rows, violations)
        if assignment is not None:
            labels = None if classes is None else targets
            fleet = Fleet(assignment, unfit_members(assignment, unusable, labels, weights))
    violations.raise_if_any()
    if features is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return assemble(features, Targets(targets, classes), weights, fleet, selection.roles(columns.names))


def _numbers(chunk: pa.Array) -> NDArray[np.generic]:
    """A chunk as numpy; with missing values as float64 with NaN."""
    if chunk.null_count and not pa.types.is_floating(chunk.type):
        chunk = chunk.cast(pa.float64())
    values: NDArray[np.generic] = chunk.to_numpy(zero_copy_only=False)
    return values
